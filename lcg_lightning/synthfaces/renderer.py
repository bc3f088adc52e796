"""The drawing: faces to pictures of any size, by signed distances painted back to front."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg_lightning.synthfaces.faces import HAIR_LENGTH, Faces

IMAGE_SIZE = 64
EDGE = 1.25
"""Pixels over which the edge of a shape is smoothed."""

Number = Tensor | float
Colour = tuple[float, float, float]

SKINS: tuple[Colour, ...] = ((1.00, 0.86, 0.75), (0.90, 0.66, 0.48), (0.48, 0.30, 0.21))
HAIRS: tuple[Colour, ...] = ((0.10, 0.08, 0.10), (0.34, 0.20, 0.12), (0.70, 0.30, 0.13), (0.96, 0.78, 0.38))
IRISES: tuple[Colour, ...] = ((0.33, 0.17, 0.07), (0.25, 0.56, 0.27), (0.20, 0.50, 0.92))
LIPS: tuple[Colour, ...] = ((0.80, 0.47, 0.43), (0.76, 0.16, 0.24))
FRAMES: tuple[Colour, ...] = ((0.10, 0.10, 0.14), (0.62, 0.10, 0.12))
GRAY: Colour = (0.80, 0.82, 0.86)
WHITE: Colour = (0.98, 0.98, 0.97)
BLACK: Colour = (0.06, 0.05, 0.07)


def render(faces: Faces, size: int = IMAGE_SIZE, chunk: int = 32) -> Tensor:
    """Draws faces.

    Every shape is a signed distance whose edge is smoothed over :data:`EDGE` pixels, so there is no supersampling.

    Args:
        faces: B faces.
        size: pixels along an edge.
        chunk: faces drawn at a time; small enough that a layer stays in the CPU cache.

    Returns:
        images (B, 3, size, size) in [-1, 1].
    """
    parts = zip(*(torch.split(x, chunk) for x in (faces.identity, faces.scene, faces.labels)), strict=True)
    with torch.no_grad():
        return torch.cat([_draw(identity, scene, labels, size) for identity, scene, labels in parts])


def _palette(colours: tuple[Colour, ...], s: Tensor) -> Tensor:
    """Colours (B, 3) along a path through the given ones, s (B,) from 0 to 1."""
    stops = s.new_tensor(colours)
    at = s.clamp(0.0, 1.0) * (len(colours) - 1)
    low = at.floor().clamp_max(len(colours) - 2).long()
    return torch.lerp(stops[low], stops[low + 1], (at - low)[:, None])


def _hue(s: Tensor, dark: float, light: float) -> Tensor:
    """Colours (B, 3) along five sixths of the hue circle, channels between dark and light."""
    phase = s[:, None] * (5 / 6) + s.new_tensor([0.0, 1 / 3, 2 / 3])
    return dark + (light - dark) * (0.5 + 0.5 * torch.cos(2 * math.pi * phase))


@dataclass
class _Window:
    """Rows of a picture that something is painted in."""

    rows: slice
    y: Tensor  # (1, h, 1), downwards


class _Canvas:
    """Pictures (B, 3, H, W) in [0, 1] that shapes are painted on."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        size = pixels.shape[-1]
        self.pixel = 2.0 / size
        axis = (torch.arange(size, device=pixels.device, dtype=pixels.dtype) + 0.5) * self.pixel - 1.0
        self.x, self.y = axis[None, None, :], axis[None, :, None]

    def window(self, top: float, bottom: float) -> _Window:
        """The rows between two heights."""
        size = self.pixels.shape[-1]
        rows = slice(
            max(0, math.floor((top + 1) / self.pixel) - 1), min(size, math.ceil((bottom + 1) / self.pixel) + 1)
        )
        return _Window(rows, self.y[:, rows])

    def inside(self, distance: Tensor) -> Tensor:
        """Coverage in [0, 1] of the pixels by what lies at a negative distance."""
        return (0.5 - distance * (1.0 / (EDGE * self.pixel))).clamp_(0.0, 1.0)

    def cover(self, where: _Window, colour: Tensor, coverage: Tensor) -> None:
        """Paints a colour (B, 3), or (B, 3, h, W), with coverage (B, h, W)."""
        if colour.ndim == 2:
            colour = colour[:, :, None, None]
        self.pixels[:, :, where.rows].lerp_(colour, coverage[:, None])

    def paint(self, where: _Window, colour: Tensor, distance: Tensor, opacity: Number = 1.0) -> None:
        """Paints a colour (B, 3) inside of a shape."""
        coverage = self.inside(distance)
        self.cover(where, colour, coverage if isinstance(opacity, float) and opacity == 1.0 else coverage * opacity)


def _ellipse(px: Tensor, py: Tensor, rx: Number, ry: Number) -> Tensor:
    smaller = torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry))
    return (((px / rx) ** 2 + (py / ry) ** 2).sqrt_() - 1.0) * smaller


def _box(px: Tensor, py: Tensor, rx: Number, ry: Number) -> Tensor:
    return torch.maximum(px.abs() - rx, py.abs() - ry)


def _segment(px: Tensor, py: Tensor, a: tuple[Number, Number], b: tuple[Number, Number]) -> Tensor:
    """Distance to a line segment from a to b."""
    dx, dy = torch.as_tensor(b[0] - a[0]), torch.as_tensor(b[1] - a[1])
    px, py = px - a[0], py - a[1]
    along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp_(0.0, 1.0)
    return ((px - along * dx) ** 2 + (py - along * dy) ** 2).sqrt_()


def _soft(distance: Tensor, width: float) -> Tensor:
    """Shade (B, h, W) in [0, 1] that fades over a width outside of a line or shape, smoothly."""
    s = (1.0 - distance * (1.0 / width)).clamp_(0.0, 1.0)
    return s * s * (3.0 - 2.0 * s)


def _draw(identity: Tensor, scene: Tensor, labels: Tensor, size: int) -> Tensor:
    b = len(labels)

    def each(v: Tensor) -> Tensor:
        return v.reshape(b, 1, 1)

    def between(low: float, high: float, s: Tensor) -> Tensor:
        return each(low + (high - low) * s)

    def constant(colour: Colour) -> Tensor:
        return labels.new_tensor(colour).expand(b, 3)

    glasses, smiling, beard, bald, hat, gray = (each(labels[:, i]) for i in range(6))
    a = (labels[:, 6] - 18.0) / 62.0
    age = each(a)
    turn = 0.62 * torch.sin(each(labels[:, 7]) * (math.pi / 180.0))
    f = identity.unbind(1)

    skin = _palette(SKINS, f[0])
    sallow = skin.mean(1, keepdim=True) * skin.new_tensor([1.08, 0.98, 0.90])
    skin = torch.lerp(skin, sallow, 0.6 * a[:, None])
    ink = skin * skin.new_tensor([0.56, 0.46, 0.46])
    hair = torch.lerp(_palette(HAIRS, f[1]), constant(GRAY), gray[:, 0])
    length = between(-0.10, 0.95, f[HAIR_LENGTH])
    parting = between(-1.0, 1.0, f[3])
    face_w, face_h = between(0.46, 0.62, f[4]), between(0.62, 0.74, f[5])
    jaw = between(0.55, -0.05, f[6])
    eye_r, eye_x = between(0.115, 0.175, f[7]), between(0.235, 0.265, f[7])
    iris = _palette(IRISES, f[8])
    brow = between(0.018, 0.060, f[9])
    nose = f[10]
    nose_w, nose_y = between(0.065, 0.145, nose), between(0.13, 0.20, nose)
    mouth_w, lips = between(0.13, 0.23, f[11]), _palette(LIPS, f[11])
    lip_h = between(0.030, 0.062, f[11])

    backdrop = torch.lerp(_hue(scene[:, 0], 0.40, 0.78), constant((0.96, 0.95, 0.93)), 0.75 * scene[:, 1:2])
    canvas = _Canvas(backdrop[:, :, None, None].repeat(1, 1, size, size))
    x = canvas.x
    everywhere = canvas.window(-1.0, 1.0)
    y = everywhere.y
    halo = _soft(_ellipse(x, y + 0.05, 0.35, 0.35), 0.85)
    canvas.cover(everywhere, torch.lerp(backdrop, constant((1.0, 1.0, 1.0)), 0.45), halo)

    hx = x - 0.34 * turn  # about the head's axis
    radius = 1.02  # the head as a cylinder: features turn with it, the far side narrows
    u = radius * torch.asin(x / radius) - turn
    au = u.abs()
    eye_y = -0.02

    def contour(y: Tensor) -> Tensor:
        """Distance to the face's edge: a chin that narrows, and with age jowls that widen and sag."""
        narrow = 1.0 - jaw * (y - 0.02).clamp(min=0.0)
        jowls = 0.24 * age * torch.exp(-(((y - 0.47) / 0.17) ** 2))
        return _ellipse(hx / (narrow + jowls), y - 0.03 - 0.02 * age, face_w, face_h + 0.03 * age)

    # behind the head: long hair, neck, clothes, ears
    lower = canvas.window(-0.95, 0.98)
    drop = torch.where(bald > 0, torch.full_like(length, -0.9), length)
    back = _ellipse(hx, (lower.y + 0.12).clamp(max=0.0), face_w + 0.15, 0.74)
    canvas.paint(lower, hair * 0.72, torch.maximum(back, lower.y - drop))
    bottom = canvas.window(0.40, 1.0)
    canvas.paint(bottom, skin * 0.74, _box(hx, bottom.y - 1.0, 0.23, 0.50))
    cloth = _hue(scene[:, 2], 0.16, 0.80)
    shoulders = _ellipse(x - 0.1 * turn, bottom.y - 1.26, 0.92, 0.50)
    canvas.paint(bottom, cloth, shoulders)
    canvas.paint(bottom, cloth * 0.62, _ellipse(hx, bottom.y - 0.80, 0.30, 0.13).abs() - 0.035)
    ears = canvas.window(-0.16, 0.24)
    canvas.paint(ears, skin * 0.86, _ellipse(hx.abs() - face_w, ears.y - 0.04, 0.10, 0.16))

    # the head, lit from the front
    head = canvas.window(-0.75, 0.90)
    face = contour(head.y)
    rim = _soft(-face, 0.30)
    light = 1.03 - 0.26 * rim - 0.07 * hx
    canvas.cover(head, skin[:, :, None, None] * light[:, None], canvas.inside(face))

    # age: hollow cheeks, furrows, folds, bags
    middle = canvas.window(-0.48, 0.56)
    my = middle.y
    shade = 0.50 * _soft(_ellipse(au - 0.38, my - 0.22, 0.05, 0.12), 0.12)
    furrow = torch.minimum(
        _segment(au, my, (0.0, -0.35), (0.21, -0.335)), _segment(au, my, (0.0, -0.46), (0.16, -0.45))
    )
    fold = _segment(au, my, (nose_w + 0.07, nose_y), (0.30, 0.46))
    bag = _ellipse(au - eye_x, my - eye_y - 0.02, eye_r + 0.035, eye_r + 0.05).abs()
    bag = torch.maximum(bag, 3.0 * (eye_y + 0.09 - my))
    lines = torch.minimum(torch.minimum(furrow, bag), fold)
    shade = torch.maximum(shade, 0.90 * _soft(lines - 0.014, 0.052))
    canvas.cover(middle, ink, shade * (age * canvas.inside(contour(my))))
    blush = canvas.window(0.02, 0.44)
    canvas.cover(
        blush,
        torch.lerp(skin, constant((0.95, 0.38, 0.34)), 0.45),
        _soft(_ellipse(au - 0.34, blush.y - 0.22, 0.05, 0.04), 0.12) * (0.75 * (1.0 - age)),
    )

    # hair: beard, then the cap above the hairline, which recedes with age
    chin = canvas.window(0.10, 0.98)
    whiskers = _ellipse(hx, chin.y - 0.08, face_w + 0.035, face_h + 0.08)
    edge = 0.285 - 1.1 * (au - 0.04).clamp(min=0.0) ** 2 - chin.y
    canvas.paint(chin, hair * 0.84, torch.maximum(torch.minimum(whiskers, contour(chin.y) - 0.02), edge), beard)
    crown = canvas.window(-0.98, 0.30)
    hairline = (
        -0.33 - 0.24 * age + 0.16 * parting * u + (5.5 + 2.0 * age) * (au - 0.24 + 0.05 * age).clamp(min=0.0) ** 2
    )
    hairline = hairline - 0.09 * age * torch.exp(-(((au - 0.26) / 0.13) ** 2))
    dome = _ellipse(hx, crown.y + 0.02, face_w + 0.11, face_h + 0.13)
    cap = torch.maximum(torch.maximum(dome, crown.y - hairline.clamp(max=0.12)), 2 * (crown.y - 0.14))
    gloss = 0.88 + 0.30 * _soft(_ellipse(hx + 0.16, crown.y + 0.66, 0.10, 0.03), 0.22)
    canvas.cover(crown, hair[:, :, None, None] * gloss[:, None], canvas.inside(cap) * (1.0 - bald))
    tufts = canvas.window(-0.28, 0.20)
    canvas.paint(tufts, hair, _ellipse(hx.abs() - face_w - 0.04, tufts.y + 0.05, 0.085, 0.19), bald)
    shine = canvas.window(-0.75, -0.30)
    canvas.cover(shine, constant(WHITE), _soft(_ellipse(hx + 0.14, shine.y + 0.54, 0.07, 0.03), 0.10) * (0.55 * bald))

    # eyes and brows; lids sink with age
    eyes = canvas.window(-0.40, 0.20)
    ey, ex = eyes.y - eye_y, au - eye_x
    height = 0.80 - 0.26 * age
    ball = _ellipse(ex, ey, eye_r, height * eye_r)
    canvas.paint(eyes, skin * 0.42, _ellipse(ex, ey + 0.028, eye_r + 0.018, height * eye_r + 0.006))
    white = canvas.inside(ball)
    canvas.cover(eyes, constant(WHITE), white)
    pupil = ((u.abs() - eye_x) ** 2 + ey**2).sqrt_()
    canvas.cover(eyes, iris, canvas.inside(pupil - 0.60 * eye_r) * white)
    canvas.cover(eyes, constant(BLACK), canvas.inside(pupil - 0.30 * eye_r) * white)
    glint = _ellipse(ex + 0.25 * eye_r * u.sign(), ey + 0.25 * eye_r, 0.20 * eye_r, 0.20 * eye_r)
    canvas.cover(eyes, constant(WHITE), canvas.inside(glint) * white)
    arch = ey + 0.245 + 2.4 * (ex + 0.02) ** 2
    canvas.paint(eyes, hair * 0.80, _box(ex, arch - 0.03, 0.15, brow))

    # nose and mouth
    centre = canvas.window(-0.10, 0.34)
    ridge = _segment(u - 0.10 * turn, centre.y, (0.0, -0.02), (0.0, nose_y)) - 0.25 * nose_w
    canvas.cover(centre, skin * 0.70, _soft(ridge, 0.07) * 0.55)
    tip = _ellipse(u - 0.22 * turn, centre.y - nose_y, nose_w + 0.01, 0.078)
    canvas.paint(centre, skin * 0.70, tip)
    canvas.cover(
        centre, skin * 1.06, _soft(_ellipse(u - 0.22 * turn, centre.y - nose_y + 0.03, 0.45 * nose_w, 0.02), 0.05)
    )
    low = canvas.window(0.28, 0.66)
    closed = _ellipse(u, low.y - 0.44 + 0.5 * u**2, mouth_w, lip_h)
    canvas.paint(low, lips, closed, 1.0 - smiling)
    seam = torch.maximum(_box(u, low.y - 0.44 + 0.5 * u**2, mouth_w, 0.012), closed)
    canvas.paint(low, lips * 0.5, seam, 1.0 - smiling)
    grin = torch.maximum(_ellipse(u, low.y - 0.37, mouth_w + 0.10, 0.20), 0.37 + 0.02 - 0.8 * u**2 - low.y)
    canvas.paint(low, lips, grin - 0.026, smiling)
    canvas.paint(low, constant(WHITE), grin + 0.016, smiling)

    # glasses
    frame = _palette(FRAMES, scene[:, 3])
    lens = _ellipse(ex - 0.005, ey - 0.005, 0.215, 0.195)
    canvas.paint(eyes, constant((0.80, 0.93, 1.0)), lens, 0.30 * glasses)
    arms = _box(au - face_w - 0.02, ey + 0.02, (face_w + 0.02 - eye_x - 0.2).clamp(min=0.02), 0.030)
    rims = torch.minimum(torch.minimum(lens.abs() - 0.034, _box(u, ey + 0.01, eye_x - 0.19, 0.030)), arms)
    canvas.paint(eyes, frame, rims, glasses)

    # hat
    top = canvas.window(-1.0, -0.28)
    felt = _hue(1.0 - scene[:, 3], 0.16, 0.86)
    dome = torch.maximum(_ellipse(hx, top.y + 0.42, face_w + 0.16, 0.55), top.y + 0.42)
    gloss = 0.90 + 0.25 * _soft(_ellipse(hx + 0.2, top.y + 0.72, 0.12, 0.05), 0.25)
    canvas.cover(top, felt[:, :, None, None] * gloss[:, None], canvas.inside(dome) * hat)
    band = _ellipse(hx - 0.25 * turn, (top.y + 0.44).clamp(min=-0.5), face_w + 0.22, 0.085)
    canvas.paint(top, felt * 0.55, band, hat)
    return canvas.pixels.clamp_(0.0, 1.0).mul_(2.0).sub_(1.0)

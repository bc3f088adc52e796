"""SynthFaces: a procedural world of faces whose attributes, identity and joint distribution are known.

A face is a standard Gaussian vector z of :data:`Z_DIM` numbers. Fixed transforms make of it an identity (16 factors:
skin, hair, face shape, eyes, brows, nose, mouth), a scene (5 factors: background, clothes, colours of hat and
frame) and eight attributes; :func:`render` draws it.

The joint distribution of the attributes, with a the age on a scale from 0 (18 years) to 1 (80 years):

=============  ==========================================================================================
Age            uniform between 18 and 80 years
Yaw            normal, standard deviation 12 degrees, cut at 30 degrees to either side
Eyeglasses     probability 0.12 + 0.50 a
Smiling        probability 0.60 - 0.15 a
Beard          probability 0.50 with short hair; never with long hair
Bald           probability 0.04 + 0.36 a with short hair; never with long hair
Hat            probability 0.32 - 0.14 a
Gray_Hair      probability 0 up to a = 0.25, then rising linearly to 0.85
=============  ==========================================================================================

Hair is long on half of the faces. Given age and hair length the binary attributes are independent. The combinations
in :data:`HELD_OUT` never occur in the training and validation splits; the test split follows the joint.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtr

from lcg_lightning.attributes import Attribute, AttributeSchema

IMAGE_SIZE = 64
SCHEMA = AttributeSchema(
    (
        Attribute("Eyeglasses"),
        Attribute("Smiling"),
        Attribute("Beard"),
        Attribute("Bald"),
        Attribute("Hat"),
        Attribute("Gray_Hair"),
        Attribute("Age", "continuous", low=18.0, high=80.0),
        Attribute("Yaw", "continuous", low=-30.0, high=30.0),
    )
)
"""Age in years, yaw in degrees (positive turns towards the right edge of the picture)."""

IDENTITY_DIM, SCENE_DIM = 16, 5
Z_DIM = IDENTITY_DIM + SCENE_DIM + len(SCHEMA)
HELD_OUT = (
    ("Beard", "Hat", "Smiling"),
    ("Bald", "Eyeglasses", "Smiling"),
    ("Eyeglasses", "Gray_Hair", "Hat"),
)
HAIR_LENGTH = 3  # column of z


@dataclass(frozen=True)
class Faces:
    """A batch of faces.

    Attributes:
        identity: (B, 16) in (0, 1), uniform each.
        scene: (B, 5) in (0, 1), uniform each.
        labels: (B, 8) attribute labels in natural units, columns as in :data:`SCHEMA`.
    """

    identity: Tensor
    scene: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def faces_from_z(z: Tensor) -> Faces:
    """Faces that standard Gaussian rows z (B, Z_DIM) stand for; deterministic."""
    u = ndtr(z)
    identity, scene, v = u.tensor_split((IDENTITY_DIM, IDENTITY_DIM + SCENE_DIM), dim=1)
    age, short = v[:, 6], (identity[:, HAIR_LENGTH] < 0.5).float()
    probability = torch.stack(
        [
            0.12 + 0.50 * age,
            0.60 - 0.15 * age,
            0.50 * short,
            (0.04 + 0.36 * age) * short,
            0.32 - 0.14 * age,
            0.85 * ((age - 0.25) / 0.75).clamp(min=0),
        ],
        dim=1,
    )
    binary = (v[:, :6] < probability).float()
    yaw = (12.0 * z[:, -1]).clamp(-30.0, 30.0)
    labels = torch.cat([binary, (18.0 + 62.0 * age)[:, None], yaw[:, None]], dim=1)
    return Faces(identity, scene, labels)


def sample_z(n: int, seed: int) -> Tensor:
    """N rows of N(0, I), (n, Z_DIM)."""
    return torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(seed))


def held_out(labels: Tensor) -> Tensor:
    """Rows (B,) bool that show one of the combinations left out of training."""
    columns = [[SCHEMA.index(name) for name in combination] for combination in HELD_OUT]
    return torch.stack([labels[:, c].bool().all(1) for c in columns]).any(0)


def _mix(a: tuple[float, ...], b: tuple[float, ...], s: Tensor) -> Tensor:
    """Colours (B, 3) between a (s = 0) and b (s = 1)."""
    return torch.lerp(s.new_tensor(a), s.new_tensor(b), s[:, None])


def _hue(s: Tensor, dark: float, light: float) -> Tensor:
    """Colours (B, 3) around the hue circle, channels between dark and light."""
    phase = s[:, None] + s.new_tensor([0.0, 1 / 3, 2 / 3])
    return dark + (light - dark) * (0.5 + 0.5 * torch.cos(2 * math.pi * phase))


def render(faces: Faces, size: int = IMAGE_SIZE, chunk: int = 32) -> Tensor:
    """Draws faces.

    Every shape is a signed distance whose edge is smoothed over one pixel, so there is no supersampling.

    Args:
        faces: B faces.
        size: pixels along an edge.
        chunk: faces drawn at a time; small enough that a layer stays in the CPU cache.

    Returns:
        images (B, 3, size, size) in [-1, 1].
    """
    parts = zip(*(torch.split(x, chunk) for x in (faces.identity, faces.scene, faces.labels)), strict=True)
    return torch.cat([_draw(identity, scene, labels, size) for identity, scene, labels in parts])


def _draw(identity: Tensor, scene: Tensor, labels: Tensor, size: int) -> Tensor:
    b = len(labels)
    pixel = 2.0 / size
    axis = (torch.arange(size, device=labels.device, dtype=labels.dtype) + 0.5) * pixel - 1.0
    x, y = axis[None, None, :], axis[None, :, None]  # (1, 1, W), (1, H, 1); y points down

    def per_face(v: Tensor) -> Tensor:
        return v.reshape(b, 1, 1)

    def between(low: float, high: float, s: Tensor) -> Tensor:
        return per_face(low + (high - low) * s)

    glasses, smiling, beard, bald, hat, gray = (per_face(labels[:, i]) for i in range(6))
    age = per_face((labels[:, 6] - 18.0) / 62.0)
    turn = 0.55 * torch.sin(per_face(labels[:, 7]) * (math.pi / 180.0))
    f = identity.unbind(1)

    skin = _mix((0.98, 0.84, 0.74), (0.40, 0.25, 0.17), f[0])
    natural = torch.where(
        f[1][:, None] < 0.5,
        _mix((0.07, 0.05, 0.05), (0.42, 0.24, 0.10), 2 * f[1]),
        _mix((0.42, 0.24, 0.10), (0.90, 0.72, 0.32), 2 * f[1] - 1),
    )
    natural = natural + f[2][:, None] ** 2 * natural.new_tensor([0.22, -0.02, -0.04])
    hair = torch.lerp(natural, natural.new_tensor([0.76, 0.77, 0.80]), gray[:, 0])
    length = between(-0.05, 0.95, f[HAIR_LENGTH])
    face_w, face_h = between(0.50, 0.64, f[4]), between(0.66, 0.80, f[5])
    jaw = between(0.05, 0.45, f[6])
    eye_x, eye_r = between(0.23, 0.32, f[7]), between(0.09, 0.145, f[8])
    iris = torch.where(
        f[9][:, None] < 0.5,
        _mix((0.25, 0.12, 0.04), (0.25, 0.55, 0.25), 2 * f[9]),
        _mix((0.25, 0.55, 0.25), (0.30, 0.60, 0.95), 2 * f[9] - 1),
    )
    brow_h, brow_tilt = between(0.016, 0.045, f[10]), between(-0.45, 0.45, f[11])
    nose_w, nose_y = between(0.06, 0.14, f[12]), between(0.13, 0.23, f[13])
    mouth_w = between(0.15, 0.25, f[14])
    lips = _mix((0.80, 0.42, 0.40), (0.62, 0.10, 0.20), f[15])

    head_x = 0.35 * turn
    hx = x - head_x  # (B, 1, W) about the head's axis
    radius = 1.02  # the head as a cylinder: features turn with it, the far side narrows
    u = radius * torch.asin(x / radius) - turn
    au = u.abs()
    eye_y = 0.0

    top = 0.5 + 0.38 * torch.tanh(torch.stack([3 * scene[:, 0] - 1.5, 3 * scene[:, 1] - 1.5, 1.5 - 3 * scene[:, 0]], 1))
    canvas = top[:, :, None, None] * (0.82 + 0.18 * y[:, None]).expand(b, 1, size, size)

    def paint(colour: Tensor, distance: Tensor, opacity: Tensor | float = 1.0) -> None:
        nonlocal canvas
        alpha = (0.5 - distance / pixel).clamp_(0.0, 1.0).mul_(opacity)
        canvas = torch.lerp(canvas, colour[:, :, None, None], alpha[:, None])

    def ellipse(px: Tensor, py: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        q = torch.sqrt((px / rx) ** 2 + (py / ry) ** 2)
        smaller = torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry))
        return (q - 1.0) * smaller

    def box(px: Tensor, py: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        return torch.maximum(px.abs() - rx, py.abs() - ry)

    def segment(x0: Tensor | float, y0: Tensor | float, x1: Tensor | float, y1: Tensor | float, r: float) -> Tensor:
        dx, dy = torch.as_tensor(x1 - x0), torch.as_tensor(y1 - y0)
        h = (((au - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0)
        return torch.sqrt((au - x0 - h * dx) ** 2 + (y - y0 - h * dy) ** 2) - r

    face = ellipse(hx / (1.0 - jaw * (y - 0.05).clamp(min=0.0)), y - 0.03, face_w, face_h)
    back = ellipse(hx, (y + 0.15).clamp(max=0.0), face_w + 0.14 - 0.06 * bald, 0.72)
    back = torch.maximum(back, y - torch.where(bald > 0, torch.full_like(length, 0.12), length))
    paint(hair, torch.maximum(back, -2.0 + 1.78 * bald - y))
    paint(skin * 0.78, box(hx, y - 1.0, 0.24, 0.40))
    paint(_hue(scene[:, 2], 0.15, 0.75), ellipse(x, y - 1.28, 0.85, 0.46))
    paint(skin * 0.88, ellipse(hx.abs() - face_w, y - 0.06, 0.09, 0.15))
    paint(skin, face)

    ink = skin * 0.50
    lines = torch.minimum(box(u, y + 0.36, 0.24, 0.012), box(u, y + 0.28, 0.28, 0.012))
    folds = segment(nose_w + 0.06, nose_y, mouth_w + 0.08, nose_y + 0.20, 0.016)
    bags = torch.maximum(ellipse(au - eye_x, y - eye_y, eye_r + 0.05, eye_r + 0.045).abs() - 0.014, eye_y + 0.05 - y)
    paint(ink, torch.maximum(torch.minimum(torch.minimum(lines, folds), bags), face), age)

    beard_edge = 0.32 - 0.9 * (au - 0.05).clamp(min=0.0) ** 2 - y
    paint(hair * 0.72, torch.maximum(face, beard_edge), beard)

    cap = torch.maximum(ellipse(hx, y + 0.02, face_w + 0.10, face_h + 0.10), y + 0.34 - 0.35 * au**2)
    paint(hair, cap, 1.0 - bald)

    white = skin.new_tensor([0.97, 0.97, 0.97]).expand(b, 3)
    black = skin.new_tensor([0.05, 0.05, 0.06]).expand(b, 3)
    paint(white, ellipse(au - eye_x, y - eye_y, eye_r, 0.68 * eye_r))
    pupil = ellipse(au - eye_x, y - eye_y, 0.62 * eye_r, 0.62 * eye_r)
    paint(iris, pupil)
    paint(black, pupil + 0.34 * eye_r)
    paint(hair * 0.8, box(au - eye_x, y - eye_y + 0.175 + brow_tilt * (au - eye_x), 0.13, brow_h))
    bridge = box(u - 0.1 * turn, y - 0.5 * nose_y, 0.25 * nose_w, 0.5 * nose_y)
    paint(skin * 0.74, torch.minimum(bridge, ellipse(u - 0.2 * turn, y - nose_y, nose_w, 0.075)))

    closed = box(u, y - 0.45, mouth_w, 0.034)
    paint(lips, closed, 1.0 - smiling)
    grin = torch.maximum(ellipse(u, y - 0.37, 1.35 * mouth_w, 0.21), 0.37 - y)
    paint(lips, grin - 0.035, smiling)
    paint(white, grin + 0.02, smiling)

    frame = _mix((0.06, 0.06, 0.08), (0.55, 0.10, 0.10), scene[:, 3])
    lens = ellipse(au - eye_x - 0.01, y - eye_y, 0.205, 0.185)
    paint(skin.new_tensor([0.75, 0.90, 1.0]).expand(b, 3), lens, 0.25 * glasses)
    arms = box(au - face_w, y - eye_y + 0.03, (face_w - eye_x - 0.2).clamp(min=0.02), 0.022)
    rims = torch.minimum(torch.minimum(lens.abs() - 0.028, box(u, y - eye_y + 0.02, eye_x - 0.18, 0.024)), arms)
    paint(frame, rims, glasses)

    cloth = _hue(scene[:, 4], 0.10, 0.80)
    paint(cloth, torch.maximum(ellipse(hx, y + 0.50, face_w + 0.15, 0.50), y + 0.50), hat)
    paint(cloth * 0.6, box(hx - 0.4 * turn, y + 0.50, face_w + 0.22, 0.055), hat)
    return canvas.clamp_(0.0, 1.0).mul_(2.0).sub_(1.0)


def independent_faces(z: Tensor) -> Faces:
    """Faces of standard Gaussian rows z (B, Z_DIM) whose attributes are independent of each other and of the identity.

    Each binary attribute shows on half of them.
    """
    faces = faces_from_z(z)
    binary = (z[:, IDENTITY_DIM + SCENE_DIM :][:, :6] < 0).float()
    return Faces(faces.identity, faces.scene, torch.cat([binary, faces.labels[:, 6:]], dim=1))

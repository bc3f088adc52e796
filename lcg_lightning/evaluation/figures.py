"""Figures of images: captioned samples and editing strips."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.plots import STYLE, save

_TILE = 1.5  # inches
_GAP = 0.06  # inches between tiles
_PIXELS = 256  # height and width of an image in a tile
_LINE = 0.17  # inches per line of text
_CHARACTERS = 20  # per line above a tile
_MOST_LINES = 8  # above a tile, and in each paragraph of the title
_NARROWEST = 3  # tiles in the width that a title needs
_ACROSS = 13  # images of a strip in one row
_SIDE = 2**16 - 1  # pixels that Matplotlib draws


def shrink(images: Tensor) -> Tensor:
    """Shrinks images (N, 3, H, W) to the size a figure shows, so that many can be kept until it is drawn."""
    return F.adaptive_avg_pool2d(images, _PIXELS) if max(images.shape[-2:]) > _PIXELS else images


def grid(
    images: Tensor,
    captions: Sequence[str],
    columns: int,
    path: Path,
    notes: Sequence[str] = (),
    title: Sequence[str] = (),
) -> None:
    """Draws samples in rows, each under its caption.

    Args:
        images: (N, 3, H, W) in [-1, 1].
        captions: One text per image; texts may be empty.
        columns: Images in a row.
        path: PNG, PDF or SVG file to write.
        notes: One short text per image, which stands below it; none by default.
        title: Paragraphs above all images, the first of them bold.
    """
    if len(images) != len(captions) or not len(images):
        raise UserError(f"{path}: {len(images)} images with {len(captions)} captions; give as many, at least one")
    rows = [slice(i, i + columns) for i in range(0, len(images), columns)]
    _mosaic([(images[row], captions[row], notes[row]) for row in rows], path, title)


def strips(
    rows: Sequence[tuple[Tensor, Sequence[str]]],
    path: Path,
    notes: Sequence[Sequence[str]] = (),
    title: Sequence[str] = (),
) -> None:
    """Draws one sequence of edits per row: the source, then the result of each step.

    If all rows share their captions, these are column headings above the first row; otherwise they are above every
    image. A long sequence goes on in a further row.

    Args:
        rows: For each sequence, the images (S + 1, 3, H, W) in [-1, 1] and their S + 1 captions, such as "source" and
            the condition of each step.
        path: PNG, PDF or SVG file to write.
        notes: For each sequence, S + 1 short texts that stand below the images; none by default.
        title: Paragraphs above all images, the first of them bold.
    """
    for images, captions in rows:
        if len(images) != len(captions):
            raise UserError(f"{path}: a strip of {len(images)} images has {len(captions)} captions; give as many")
    if not rows:
        raise UserError(f"{path}: no strip to draw; give at least one")
    below = notes or [()] * len(rows)
    steps = max(len(images) for images, _ in rows)
    if steps <= _ACROSS and all(list(captions) == list(rows[0][1]) for _, captions in rows):
        rows = [rows[0], *((images, [""] * len(images)) for images, _ in rows[1:])]
    parts = [slice(i, i + _ACROSS) for i in range(0, steps, _ACROSS)]
    cut = [(i[part], c[part], n[part]) for (i, c), n in zip(rows, below, strict=True) for part in parts if len(i[part])]
    _mosaic(cut, path, title)


def _mosaic(rows: Sequence[tuple[Tensor, Sequence[str], Sequence[str]]], path: Path, title: Sequence[str] = ()) -> None:
    """Rows of images (n, 3, H, W) in [-1, 1] on a fixed grid, each below its caption and above its note, if any."""
    wrapped = [[_wrap(caption, _CHARACTERS) for caption in captions] for _, captions, _ in rows]
    heads = [max(map(len, lines)) * _LINE + 0.1 for lines in wrapped]
    feet = [_LINE if any(notes) else 0.0 for _, _, notes in rows]
    columns = max(len(images) for images, _, _ in rows)
    width = max(columns, _NARROWEST if title else 0) * (_TILE + _GAP) + _GAP
    paragraphs = [_wrap(text, int(width * (14 if i else 11))) for i, text in enumerate(title)]
    height = sum(map(len, paragraphs)) * _LINE + sum(heads) + sum(feet) + len(rows) * _TILE + _GAP
    with mpl.rc_context(STYLE):
        dpi = min(100, _SIDE / max(width, height))
        figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))  # one for all, in inches; an axes for each image takes twice as long
        axes.set_axis_off()
        top = height - _GAP
        for i, lines in enumerate(paragraphs):
            weight, size, spacing = ("normal", 8.5, 1.4) if i else ("bold", 10, 1.2)
            axes.text(_GAP, top, "\n".join(lines), size=size, weight=weight, linespacing=spacing, va="top")
            top -= len(lines) * _LINE
        top += _GAP
        for (images, _, notes), captions, head, foot in zip(rows, wrapped, heads, feet, strict=True):
            top -= head + _TILE
            pixels = ((images.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
            for i, (picture, caption) in enumerate(zip(pixels, captions, strict=True)):
                left = _GAP + i * (_TILE + _GAP)
                axes.imshow(picture, interpolation="lanczos", extent=(left, left + _TILE, top, top + _TILE))
                axes.text(left + _TILE / 2, top + _TILE + 4 / 72, "\n".join(caption), fontsize=8.5, ha="center")
                if foot:
                    axes.text(left + _TILE / 2, top - 3 / 72, notes[i], fontsize=8, ha="center", va="top")
            top -= foot
        axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
        save(figure, path)


def _wrap(text: str, characters: int) -> list[str]:
    return textwrap.wrap(text, characters, max_lines=_MOST_LINES, placeholder=" ...")

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
_PIXELS = 256  # height and width of an image in a tile
_LINE = 0.17  # inches per caption line
_CHARACTERS = 20  # per caption line


def shrink(images: Tensor) -> Tensor:
    """Shrinks images (N, 3, H, W) to the size a figure shows, so that many can be kept until it is drawn."""
    return F.adaptive_avg_pool2d(images, _PIXELS) if max(images.shape[-2:]) > _PIXELS else images


def grid(images: Tensor, captions: Sequence[str], columns: int, path: Path) -> None:
    """Draws samples in rows, each under its caption.

    Args:
        images: (N, 3, H, W) in [-1, 1].
        captions: One text per image; texts may be empty.
        columns: Images in a row.
        path: PNG, PDF or SVG file to write.
    """
    if len(images) != len(captions) or not len(images):
        raise UserError(f"{path}: {len(images)} images with {len(captions)} captions; give as many, at least one")
    starts = range(0, len(images), columns)
    _mosaic([(images[i : i + columns], captions[i : i + columns]) for i in starts], path)


def strips(rows: Sequence[tuple[Tensor, Sequence[str]]], path: Path) -> None:
    """Draws one sequence of edits per row: the source, then the result of each step.

    If all rows share their captions, these are column headings above the first row; otherwise they are above every
    image.

    Args:
        rows: For each sequence, the images (S + 1, 3, H, W) in [-1, 1] and their S + 1 captions, such as "source" and
            the condition of each step.
        path: PNG, PDF or SVG file to write.
    """
    for images, captions in rows:
        if len(images) != len(captions):
            raise UserError(f"{path}: a strip of {len(images)} images has {len(captions)} captions; give as many")
    if not rows:
        raise UserError(f"{path}: no strip to draw; give at least one")
    if all(list(captions) == list(rows[0][1]) for _, captions in rows):
        rows = [rows[0], *((images, [""] * len(images)) for images, _ in rows[1:])]
    _mosaic(rows, path)


def _mosaic(rows: Sequence[tuple[Tensor, Sequence[str]]], path: Path) -> None:
    """Rows of images (n, 3, H, W) in [-1, 1], each below its caption, on a fixed grid."""
    wrapped = [[textwrap.wrap(caption, _CHARACTERS) for caption in captions] for _, captions in rows]
    heads = [max(map(len, lines)) * _LINE + 0.1 for lines in wrapped]
    columns = max(len(images) for images, _ in rows)
    gap = 0.06
    width, height = columns * (_TILE + gap) + gap, sum(heads) + len(rows) * _TILE + gap
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))  # one for all, in inches; an axes for each image takes twice as long
        axes.set_axis_off()
        top = height
        for (images, _), lines, head in zip(rows, wrapped, heads, strict=True):
            top -= head + _TILE
            pixels = ((images.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
            for i, (picture, caption) in enumerate(zip(pixels, lines, strict=True)):
                left = gap + i * (_TILE + gap)
                axes.imshow(picture, interpolation="lanczos", extent=(left, left + _TILE, top, top + _TILE))
                axes.text(left + _TILE / 2, top + _TILE + 4 / 72, "\n".join(caption), fontsize=8.5, ha="center")
        axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
        save(figure, path)

"""Figures: captioned samples, editing strips, and accuracy against identity."""

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic

# Okabe and Ito's colours, told apart by colour-blind readers too
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INK, _FAINT = "#222222", "#E4E4E4"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#999999",
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_TILE = 1.5  # inches
_PIXELS = 256  # height and width of a picture in it
_LINE = 0.17  # inches of a caption's line
_CHARACTERS = 20  # in a caption's line


def shrink(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) at most as large as a figure shows them, so that many can be kept until it is drawn."""
    return F.adaptive_avg_pool2d(images, _PIXELS) if max(images.shape[-2:]) > _PIXELS else images


def grid(images: Tensor, captions: Sequence[str], columns: int, path: Path) -> None:
    """Draws samples in rows, each under its caption.

    Args:
        images: (N, 3, H, W) in [-1, 1].
        captions: One text per image; may be empty texts.
        columns: Images in a row.
        path: PNG, PDF or SVG file to write.
    """
    if len(images) != len(captions) or not len(images):
        raise UserError(f"{path}: {len(images)} images with {len(captions)} captions; give as many, at least one")
    starts = range(0, len(images), columns)
    _mosaic([(images[i : i + columns], captions[i : i + columns]) for i in starts], path)


def strips(rows: Sequence[tuple[Tensor, Sequence[str]]], path: Path) -> None:
    """Draws one sequence of edits a row: the source, then the result of each step.

    Captions stand as column headings above the first row if all rows share them, else above every image.

    Args:
        rows: Per sequence the images (S + 1, 3, H, W) in [-1, 1] and their S + 1 captions: such as "source",
            then the condition of each step.
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
    """Rows of images (n, 3, H, W) in [-1, 1], each image below its caption, on a fixed raster."""
    wrapped = [[textwrap.wrap(caption, _CHARACTERS) for caption in captions] for _, captions in rows]
    heads = [max(map(len, lines)) * _LINE + 0.1 for lines in wrapped]
    columns = max(len(images) for images, _ in rows)
    gap = 0.06
    width, height = columns * (_TILE + gap) + gap, sum(heads) + len(rows) * _TILE + gap
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
        top = height
        for (images, _), lines, head in zip(rows, wrapped, heads, strict=True):
            top -= head + _TILE
            pixels = ((images.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
            for i, (picture, caption) in enumerate(zip(pixels, lines, strict=True)):
                left = gap + i * (_TILE + gap)
                box = (left / width, top / height, _TILE / width, _TILE / height)
                axes = figure.add_axes(box)
                axes.imshow(picture, interpolation="lanczos")
                axes.set_axis_off()
                axes.set_title("\n".join(caption), fontsize=8.5, pad=4)
        _save(figure, path)


def accuracy_identity(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> bool:
    """Draws joint accuracy against identity over guidance scales: one line per method.

    Up and right is better. Points are labelled with their scale and carry the 95 % intervals of both figures.
    Runs of one method that differ in evaluations or seed are lines of their own.

    Args:
        rows: Leaderboard rows; those without ``acc_joint`` or ``id`` do not appear.
        path: PNG, PDF or SVG file to write.
        title: Text above the figure.

    Returns:
        Whether there was anything to draw; if not, no file is written.
    """
    lines = _lines([row for row in rows if row["acc_joint"] is not None and row["id"] is not None])
    if not lines:
        return False
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.4), dpi=150, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        for i, (label, points) in enumerate(lines.items()):
            _draw_line(axes, points, label, _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
        axes.set_xlabel("Identity kept (cosine, higher is better)")
        axes.set_ylabel("Joint attribute accuracy (higher is better)")
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.grid(color=_FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(0.08)
        if any(row["scale"] is not None for points in lines.values() for row in points):
            note = "labels: guidance scale; bars: 95 % intervals"
        else:
            note = "bars: 95 % intervals"
        figure.legend(loc="outside lower center", ncols=min(4, len(lines)), frameon=False, title=note, title_fontsize=8)
        _save(figure, path)
    return True


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by line label, each line by rising scale; labels say only what tells a method's lines apart."""
    runs: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        runs[row["method"], f"NFE {row['nfe']:g}", f"seed {row['seed']}"].append(row)
    lines = {}
    for key, points in sorted(runs.items()):
        siblings = [other for other in runs if other[0] == key[0]]
        differing = [part for i, part in enumerate(key) if i == 0 or len({s[i] for s in siblings}) > 1]
        lines[", ".join(differing)] = sorted(points, key=lambda r: (r["scale"] is not None, r["scale"] or 0.0))
    return lines


def _draw_line(axes: Axes, points: Sequence[Mapping[str, Any]], label: str, colour: str, marker: str) -> None:
    """One method's points, joined in the order given."""
    x, y = [row["id"] for row in points], [row["acc_joint"] for row in points]
    axes.errorbar(
        x,
        y,
        xerr=_errors(points, "id"),
        yerr=_errors(points, "acc_joint"),
        color=colour,
        ecolor=mpl.colors.to_rgba(colour, 0.35),
        elinewidth=1.2,
        marker=marker,
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linewidth=1.8,
        label=label,
    )
    for row in points:
        if row["scale"] is not None:
            at = (row["id"], row["acc_joint"])
            axes.annotate(f"{row['scale']:g}", at, (6, 5), textcoords="offset points", fontsize=8, color=colour)


def _errors(points: Sequence[Mapping[str, Any]], metric: str) -> list[list[float]]:
    """Distances from each value down and up to its interval's bounds; 0 where a bound is unknown."""
    down, up = [], []
    for row in points:
        low, high = row["intervals"][metric]
        down.append(0.0 if low is None else max(row[metric] - low, 0.0))
        up.append(0.0 if high is None else max(high - row[metric], 0.0))
    return [down, up]


def _save(figure: Figure, path: Path) -> None:
    with atomic(Path(path)) as temporary:
        figure.savefig(temporary)

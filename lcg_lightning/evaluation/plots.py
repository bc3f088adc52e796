"""Plots of a leaderboard: joint accuracy against identity."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcg_lightning.files import atomic

if TYPE_CHECKING:  # imported only when drawing: a leaderboard without edits needs no Matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colors, which color-blind readers can distinguish
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INK, _FAINT = "#222222", "#E4E4E4"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#999999",
    "xtick.color": _INK,
    "ytick.color": _INK,
}
"""Matplotlib settings of every figure."""
_TOLD_APART = {
    "seed": "seeds",
    "n": "n",
    "store": "store",
    "generator": "generator",
    "judge": "judge",
    "identity": "identity_network",
}


def accuracy_identity(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> bool:
    """Draws joint accuracy against identity over guidance scales: one line per method.

    Up and right is better. Points are labelled with their scale and show the 95 % intervals of both figures. Runs of
    one method that differ in function evaluations, seed, number of samples or judges are separate lines.

    Args:
        rows: Leaderboard rows; those without ``acc_joint`` or ``id`` are left out.
        path: PNG, PDF or SVG file to write.
        title: Text above the figure.

    Returns:
        Whether there was anything to draw; if not, no file is written.
    """
    lines = _lines([row for row in rows if row.get("acc_joint") is not None and row.get("id") is not None])
    if not lines:
        return False
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
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
        save(figure, path)
    return True


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by line label, each line by rising scale; labels give only what distinguishes a method's lines."""
    runs: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        told = (f"{name} {row[key]}" for name, key in _TOLD_APART.items())
        runs[row["method"], f"NFE {row['nfe']:g}", *told].append(row)
    lines = {}
    for key, points in sorted(runs.items()):
        siblings = [other for other in runs if other[0] == key[0]]
        differing = [part for i, part in enumerate(key) if i == 0 or len({s[i] for s in siblings}) > 1]
        lines[", ".join(differing)] = sorted(points, key=lambda r: (r["scale"] is not None, r["scale"] or 0.0))
    return lines


def _draw_line(axes: "Axes", points: Sequence[Mapping[str, Any]], label: str, colour: str, marker: str) -> None:
    """Draws one method's points, joined in the given order."""
    x, y = [row["id"] for row in points], [row["acc_joint"] for row in points]
    axes.errorbar(
        x,
        y,
        xerr=_errors(points, "id"),
        yerr=_errors(points, "acc_joint"),
        color=colour,
        ecolor=(colour, 0.35),
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
    """Distances from each value to its interval's lower and upper bounds; 0 where a bound is unknown."""
    down, up = [], []
    for row in points:
        low, high = row["intervals"][metric]
        down.append(0.0 if low is None else max(row[metric] - low, 0.0))
        up.append(0.0 if high is None else max(high - row[metric], 0.0))
    return [down, up]


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure atomically, in the format given by the suffix."""
    with atomic(Path(path)) as temporary:
        figure.savefig(temporary)

"""Plots of a leaderboard: joint accuracy against what it costs, and figures over the generator's curvature."""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcg_lightning.files import atomic

if TYPE_CHECKING:  # imported only when drawing: a leaderboard without edits needs no Matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colors, which color-blind readers can distinguish
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7B7B7B")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT = "#222222", "#E4E4E4"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a $ in a label is a dollar sign
}
"""Matplotlib settings of every figure."""
IDENTITY = ("id", "id_distance")
"""Columns of what an edit keeps; a table has one of them."""
FIDELITY = ("energy", "fid")
"""Columns of how near generated samples are to the true ones."""
_LABELS = {
    "acc_joint": "Joint accuracy",
    "id": "Identity kept (cosine)",
    "id_distance": "Identity distance",
    "fid": "FID",
    "energy": "Energy distance",
}
_LOWER = ("id_distance", "fid", "energy")
_TOLD_APART = {
    "seed": "seeds",
    "n": "n",
    "store": "store",
    "generator": "generator",
    "judge": "judge",
    "identity": "identity_network",
    "features": "features",
    "reference": "reference",
}


def accuracy_identity(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> bool:
    """Draws joint accuracy against identity, see :func:`trade_off`.

    Args:
        rows: leaderboard rows.
        path: PNG, PDF or SVG file to write.
        title: text above the figure.

    Returns:
        Whether there was anything to draw; if not, no file is written.
    """
    for name in IDENTITY:
        if (figure := trade_off(rows, name, title)) is not None:
            save(figure, path)
            return True
    return False


def trade_off(rows: Sequence[Mapping[str, Any]], against: str, title: str = "") -> "Figure | None":
    """Joint accuracy against another figure over guidance scales: one line per method; up and right is better.

    Points show the 95 % intervals of both figures, and are labelled with their scale where a line has several. Runs of
    one method that differ in function evaluations, seed, number of samples or judges are separate lines.

    Args:
        rows: leaderboard rows; those without ``acc_joint`` or ``against`` are left out.
        against: name of the other column, one of :data:`IDENTITY` or :data:`FIDELITY`.
        title: text above the figure.
    """
    lines = _lines([row for row in rows if row.get("acc_joint") is not None and row.get(against) is not None])
    if not lines:
        return None
    scales = {label: {row["scale"] for row in points} - {None} for label, points in lines.items()}
    scaled = any(len(found) > 1 for found in scales.values())
    note = "labels: guidance scale; bars: 95 % intervals" if scaled else "bars: 95 % intervals"
    with _style():
        figure, (axes,) = _figure(1, title)
        _draw_lines(axes, lines, against, "acc_joint")
        for label, points in lines.items():
            for row in points:
                if row["scale"] is not None and len(scales[label]) > 1:
                    at = (row[against], row["acc_joint"])
                    axes.annotate(f"{row['scale']:g}", at, (6, 5), textcoords="offset points", fontsize=8)
        _legend(figure, axes, len(lines), note)
    return figure


def over_curvature(rows: Sequence[Mapping[str, Any]], title: str = "") -> "Figure | None":
    """Joint accuracy and, of edits, identity over the generator's curvature: one line per method.

    A method with several rows at one curvature has one line per scale.

    Args:
        rows: leaderboard rows with ``curvature``; methods with a single curvature are left out.
        title: text above the figure.
    """
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    at = Counter((row["method"], row["curvature"]) for row in rows)
    several = {method for (method, _), count in at.items() if count > 1}
    for row in rows:
        scale = f", scale {row['scale']:g}" if row["method"] in several and row["scale"] is not None else ""
        groups[f"{row['method']}{scale}"].append(row)
    names = [n for n in ("acc_joint", *IDENTITY, *FIDELITY) if any(row.get(n) is not None for row in rows)][:2]
    lines = {
        label: sorted(members, key=lambda row: row["curvature"])
        for label, members in sorted(groups.items())
        if len({row["curvature"] for row in members}) > 1
    }
    if not names or not lines:
        return None
    with _style():
        figure, panels = _figure(len(names), title)
        for axes, name in zip(panels, names, strict=True):
            shown = {label: [row for row in points if row.get(name) is not None] for label, points in lines.items()}
            _draw_lines(axes, shown, "curvature", name)
        _legend(figure, panels[0], len(lines), "bars: 95 % intervals")
    return figure


def _style() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def _figure(panels: int, title: str) -> "tuple[Figure, Sequence[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 if panels == 1 else 9.6, 4.4), dpi=150, facecolor="white", layout="constrained")
    axes = [figure.add_subplot(1, panels, i + 1) for i in range(panels)]
    axes[0].set_title(textwrap.shorten(title, 110, placeholder=" ..."), loc="left", fontsize=11, fontweight="bold")
    return figure, axes


def _draw_lines(axes: "Axes", lines: Mapping[str, Sequence[Mapping[str, Any]]], x: str, y: str) -> None:
    """One line per method, of column ``y`` over column ``x``; better is up and right."""
    for i, (label, points) in enumerate(lines.items()):
        axes.errorbar(
            [row[x] for row in points],
            [row[y] for row in points],
            xerr=None if x == "curvature" else _errors(points, x),
            yerr=_errors(points, y),
            color=_COLOURS[i % len(_COLOURS)],
            ecolor=(_COLOURS[i % len(_COLOURS)], 0.35),
            elinewidth=1.2,
            marker=_MARKERS[(i + i // len(_COLOURS)) % len(_MARKERS)],
            linestyle=("-", "--", ":")[i // len(_COLOURS) % 3],
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.8,
            linewidth=1.8,
            label=f" {label}" if label.startswith("_") else label,  # Matplotlib hides labels that begin with _
        )
    for name, axis, set_label in ((x, axes.xaxis, axes.set_xlabel), (y, axes.yaxis, axes.set_ylabel)):
        if name == "curvature":
            set_label("Curvature of the latent space (0 = linear)")
            continue
        axis.set_inverted(name in _LOWER)
        set_label(f"{_LABELS[name]} ({'lower' if name in _LOWER else 'higher'} is better)")
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.08)


def _legend(figure: "Figure", axes: "Axes", lines: int, note: str) -> None:
    handles = axes.get_legend_handles_labels()
    columns = min(4, lines)
    figure.legend(
        *handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, title=note, title_fontsize=8
    )


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by line label, each line by rising scale; labels give only what distinguishes a method's lines."""
    runs: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        told = (f"{name} {row.get(key)}" for name, key in _TOLD_APART.items())
        runs[row["method"], f"NFE {row['nfe']:g}", *told].append(row)
    lines = {}
    for key, points in sorted(runs.items()):
        siblings = [other for other in runs if other[0] == key[0]]
        differing = [part for i, part in enumerate(key) if i == 0 or len({s[i] for s in siblings}) > 1]
        lines[", ".join(differing)] = sorted(points, key=lambda r: (r["scale"] is not None, r["scale"] or 0.0))
    return lines


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
    with atomic(path) as temporary:
        if path.suffix == ".png":
            figure.savefig(temporary, pil_kwargs={"compress_level": 4})  # in half the time of 6, a tenth larger
        else:
            figure.savefig(temporary)

"""What a sweep found: lines of progress, a table, and a figure of the metric over each parameter."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Table
from rich.text import Text

from lcg_lightning.evaluation.plots import STYLE, save
from lcg_lightning.evaluation.records import Record
from lcg_lightning.sweeps.file import Sweep
from lcg_lightning.sweeps.parameters import Ranged

_COLOUR, _BEST = "#0072B2", "#D55E00"  # Okabe and Ito's
_MOST = 6
"""Most parameters that the figure shows."""


def kept(record: Record) -> dict[str, Any]:
    """What a trial keeps of its record: value and interval of each figure, and the text of each column by heading."""
    columns = [column for column in record.columns if column.name in record.metrics]
    return {
        "figures": {
            name: [x if math.isfinite(x) else None for x in estimate] for name, estimate in record.metrics.items()
        },
        "shown": {column.heading: column.shown(*record.metrics[column.name]) for column in columns},
    }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The shortest endings of dotted names that tell them apart.

    >>> short_names(["method.scale", "method.tau", "model.seed", "data.seed"])
    {'method.scale': 'scale', 'method.tau': 'tau', 'model.seed': 'model.seed', 'data.seed': 'data.seed'}
    """
    found = {}
    for name in names:
        parts = [part for part in name.split(".") if part != "init_args"]
        ends = (".".join(parts[-k:]) for k in range(1, len(parts) + 1))
        others = [".".join(p for p in other.split(".") if p != "init_args") for other in names if other != name]
        found[name] = next((e for e in ends if not any(f".{o}".endswith(f".{e}") for o in others)), name)
    return found


def line(trial: FrozenTrial, sweep: Sweep, done: int, total: int, seconds_left: float) -> str:
    """One trial in one line, with the time that the others will take."""
    names = short_names(sweep.swept)
    where = ", ".join(f"{names[name]}={_short(value)}" for name, value in point(trial).items() if name in names)
    result = trial.user_attrs.get("reason") or ", ".join(
        f"{heading} {text}" for heading, text in trial.user_attrs.get("shown", {}).items()
    )
    rest = f"; about {_time(seconds_left)} left" if done < total else ""
    return f"trial {trial.number} ({done} of {total}): {where}: {result}, {_time(seconds(trial))}{rest}"


def seconds(trial: FrozenTrial) -> float:
    """How long a trial took; 0 if it has not ended."""
    return trial.duration.total_seconds() if trial.duration else 0.0


def _time(s: float) -> str:
    return f"{s:.1f} s" if s < 100 else f"{s / 60:.0f} min" if s < 6000 else f"{s / 3600:.1f} h"


def point(trial: FrozenTrial) -> dict[str, str]:
    """The parameters of a trial as the command line takes them; empty if it was cut off before it drew them."""
    return dict(trial.user_attrs.get("arguments", {}))


def ended(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that have a result: figures, or the reason why there are none."""
    states = (TrialState.COMPLETE, TrialState.FAIL)
    return [trial for trial in trials if trial.state in states and {"reason", "shown"} & trial.user_attrs.keys()]


def ranked(trials: Sequence[FrozenTrial], sweep: Sweep) -> list[FrozenTrial]:
    """Finished trials, best first, then those that failed and those that run elsewhere."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    finished.sort(key=lambda trial: (-1 if sweep.maximize else 1) * (trial.value or 0.0))
    failed = [trial for trial in ended(trials) if trial.state == TrialState.FAIL]
    return [*finished, *failed, *(trial for trial in trials if trial.state == TrialState.RUNNING)]


def table(trials: Sequence[FrozenTrial], sweep: Sweep, intervals: bool = True) -> Table:
    """All trials with their parameters and figures."""
    names = short_names(sweep.swept)
    headings = list(dict.fromkeys(h for trial in trials for h in trial.user_attrs.get("shown", {})))
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title_justify="left")
    shown.title = Text(f"{sweep.name}: {'largest' if sweep.maximize else 'smallest'} {sweep.metric} first")
    for heading in ["Trial", *names.values(), *headings, "s", ""]:
        shown.add_column(Text(heading), justify="left" if heading in ("Trial", "") else "right", overflow="fold")
    for trial in trials:
        values = point(trial)
        texts = trial.user_attrs.get("shown", {})
        texts = texts if intervals else {heading: text.split(" [")[0] for heading, text in texts.items()}
        took = f"{seconds(trial):.1f}" if trial.state.is_finished() else ""
        note = "running" if trial.state == TrialState.RUNNING else trial.user_attrs.get("reason", "")
        cells = [
            str(trial.number),
            *(_short(values.get(name, "")) for name in names),
            *(texts.get(h, "") for h in headings),
        ]
        shown.add_row(*map(Text, [*cells, took, note]))
    return shown


def draw(trials: Sequence[FrozenTrial], sweep: Sweep, path: Path) -> bool:
    """Draws the metric over each swept parameter and, where edits were measured, accuracy against identity.

    Bars are 95 % intervals, and the best trial is marked.

    Returns:
        Whether there was anything to draw; if not, no file is written.
    """
    finished = [trial for trial in ranked(trials, sweep) if trial.state == TrialState.COMPLETE]
    names = short_names(sweep.swept[:_MOST])
    panels: list[tuple[str, str, str]] = [(name, short, sweep.metric) for name, short in names.items()]
    if finished and {"acc_joint", "id"} <= finished[0].user_attrs["figures"].keys():
        panels.append(("", "Identity kept (cosine)", "acc_joint"))
    if not finished or not panels:
        return False
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(panels), 3.6), dpi=150, facecolor="white", layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (name, heading, metric) in zip(axes, panels, strict=True):
            _panel(panel, finished, sweep, name, metric)
            panel.set_xlabel(heading if name or len(names) > 1 else f"{heading}; labels: {', '.join(names.values())}")
            panel.set_ylabel("Joint attribute accuracy" if metric == "acc_joint" else metric)
        figure.suptitle(f"{sweep.name}; bars: 95 % intervals", x=0.01, ha="left", fontsize=11, fontweight="bold")
        save(figure, path)
    return True


def _panel(axes: Any, trials: Sequence[FrozenTrial], sweep: Sweep, name: str, metric: str) -> None:
    """One panel: a figure over a parameter, or over identity if no parameter is named."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    labels = short_names(sweep.swept)
    values = [point(trial).get(name, "") for trial in trials]
    numbers = _numbers(values)
    for i, trial in reversed(list(enumerate(trials))):  # the best on top
        y, x = trial.user_attrs["figures"].get(metric), trial.user_attrs["figures"].get("id")
        if y is None or (not name and x is None):
            continue
        at = (numbers or values)[i] if name else x[0]
        colour = _BEST if i == 0 else _COLOUR
        errors = {"yerr": _bar(y)} | ({} if name else {"xerr": _bar(x)})
        axes.errorbar(at, y[0], **errors, color=colour, ecolor=(colour, 0.35), marker="o", markeredgecolor="white")
        if not name and len(labels) == 1:
            (only,) = labels
            text = _short(point(trial)[only])
            axes.annotate(text, (at, y[0]), (6, 5), textcoords="offset points", fontsize=8, color=colour)
    if isinstance(each := sweep.parameters.get(name), Ranged) and each.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.1)


def _bar(figure: Sequence[float | None]) -> list[list[float]]:
    """Distances from a figure to its interval's ends; 0 where an end is unknown."""
    value, low, high = figure
    assert value is not None
    return [[0.0 if low is None else max(value - low, 0.0)], [0.0 if high is None else max(high - value, 0.0)]]


def _short(text: str) -> str:
    """A value as it is shown: fractions with four digits."""
    try:
        return f"{float(text):.4g}" if "." in text else text
    except ValueError:
        return text


def _numbers(texts: Sequence[str]) -> list[float] | None:
    """The texts as numbers; None if one is none."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return None

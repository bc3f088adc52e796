"""Quality over function evaluations in both worlds: generation by sampler, and edits by steps of their inversion.

Every figure is that of an evaluation on val rows with the benchmark's own networks of the first seed, which are trained
if they are not there. All rows of a table share noise, conditions and sources, so their differences are far less noisy
than each figure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.benchmark import Part
from benchmarks.jobs import Job, run_all
from benchmarks.worlds import HERE
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.plots import STYLE, save
from lcg_lightning.evaluation.records import Record
from lcg_lightning.files import atomic
from lcg_lightning.yaml_files import load_yaml

WORLDS = ("synthfaces", "exact")
SCALES = (2.0, 4.0)
SAMPLERS = ("ddim", "dpmpp_2m", "dpmpp_2m_secant", "heun")
BUDGETS = (6, 8, 12, 20, 50)
"""Evaluations for one sample."""
EDITS = ((20, 3), (20, 2), (20, 1), (14, 1), (10, 1), (10, 0), (7, 1), (7, 0), (5, 1), (5, 0))
"""Steps and fixed-point iterations of an edit; the first is the most exact."""
FIGURES = {
    "acc_joint": "joint accuracy",
    "fid": "FID",
    "latent_frechet": "latent Fréchet",
    "energy": "energy distance",
    "id": "identity",
    "id_distance": "identity distance",
    "drift": "drift",
}


@dataclass(frozen=True)
class Point:
    """A row of a table: a setting, and the evaluation that measures it."""

    world: str
    task: str
    group: str
    setting: Mapping[str, Any]
    job: Job


def points(out: Path, n: int) -> Iterator[Point]:
    """All rows of all tables, in order."""
    plan = load_yaml(HERE / "plan.yaml")
    for world in WORLDS:
        part = Part.read(world, plan, out)
        for scale in SCALES:
            for sampler in SAMPLERS:
                for budget in BUDGETS:
                    # Heun's method takes two evaluations for every step but the last
                    steps = budget // 2 + 1 if sampler == "heun" else budget
                    setting = {"sampler": sampler, "steps": steps, "scale": scale}
                    yield point(part, "conditional-3", f"scale {scale:g}", setting, n)
        for steps, fixed_point in EDITS:
            yield point(part, "editing", "edits", {"steps": steps, "fixed_point": fixed_point}, n)


def point(part: Part, task: str, group: str, setting: Mapping[str, Any], n: int) -> Point:
    """One evaluation on val rows; FID compares with the test split's, as val rows are asked about."""
    name = "-".join(["quality", part.world.name, task, *map(str, setting.values())])
    more = ["--model.init_args.split=val", "--model.init_args.reference=test"]
    job = part.evaluation(name, task, "lcg", 0, n, setting, more)
    return Point(part.world.name, task, group, setting, job)


def table(rows: Sequence[tuple[Point, Record]]) -> list[str]:
    """Markdown lines: settings, evaluations, and every figure that the records share."""
    names = [name for name in FIGURES if all(name in record.metrics for _, record in rows)]
    lines = [[*rows[0][0].setting, "evaluations", *(FIGURES[name] for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for each, record in rows:
        figures = [f"{record.metrics[name].value:.3f}" for name in names]
        lines.append([*map(str, each.setting.values()), f"{record.nfe:g}", *figures])
    return [f"| {' | '.join(line)} |" for line in lines]


def draw(rows: Sequence[tuple[Point, Record]], path: Path) -> None:
    """Joint accuracy and the distance of latents over evaluations, a line for each sampler, a column for each world."""
    names = ("acc_joint", "latent_frechet")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(WORLDS), 3.0 * len(names)), dpi=100, layout="constrained")
        axes = figure.subplots(len(names), len(WORLDS), sharex=True, squeeze=False)
        for column, world in zip(axes.T, WORLDS, strict=True):
            for ax, name in zip(column, names, strict=True):
                for sampler in SAMPLERS:
                    mine = [row for row in rows if (row[0].world, row[0].setting["sampler"]) == (world, sampler)]
                    line = [(record.nfe, record.metrics[name].value) for _, record in mine]
                    ax.plot(*zip(*line, strict=True), marker="o", markersize=4, label=sampler)
                ax.set(ylabel=FIGURES[name], xscale="log", xticks=BUDGETS, xticklabels=map(str, BUDGETS))
                if name != "acc_joint":
                    ax.set_yscale("log")
                    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
                    ax.yaxis.set_major_formatter("{x:g}")
                    ax.yaxis.set_minor_locator(NullLocator())
                ax.xaxis.set_minor_locator(NullLocator())
                ax.grid(color="#E4E4E4")
            column[0].set_title(world)
            column[-1].set_xlabel("evaluations for one sample")
        axes[0, 0].legend(frameon=False, fontsize=9)
        figure.suptitle(f"three attributes at once, guidance {rows[0][0].group}", fontsize=11)
        save(figure, path)


def main(out: Path = Path("runs/benchmark"), results: Path = HERE / "results", n: int = 1000, workers: int = 2) -> None:
    """Measure what is not measured yet, then write quality.md and quality.png.

    Args:
        out: folder of the benchmark, or a new one.
        results: folder to write into.
        n: val rows to ask about and to edit.
        workers: jobs at a time, one thread each.
    """
    plan = list(points(out, n))
    needed = {job.name: job for each in plan for job in (*jobs_before(each.job), each.job)}
    if failed := run_all(needed.values(), workers):
        raise SystemExit(f"failed: {', '.join(failed)}")
    found = [(each, records.read(each.job.out / "record.json")) for each in plan]
    lines = ["# Quality over evaluations", "", "How to read it: [benchmarks/speed](../speed/README.md).", ""]
    for world in WORLDS:
        for group in dict.fromkeys(each.group for each in plan):
            rows = [row for row in found if (row[0].world, row[0].group) == (world, group)]
            lines += [f"## {world}, {rows[0][0].task}, {group}, n = {n:,}", "", *table(rows), ""]
    with atomic(results / "quality.md") as file:
        file.write_text("\n".join(lines))
    draw([row for row in found if row[0].group == f"scale {SCALES[-1]:g}"], results / "quality.png")


def jobs_before(job: Job) -> Iterator[Job]:
    """All that a job rests on, the first first."""
    for each in job.after:
        yield from jobs_before(each)
        yield each


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=False)

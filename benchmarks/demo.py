"""The whole path on SynthFaces: render, encode, fit, evaluate, leaderboard. ``make demo`` runs it.

A short second part does the same in the exact world, where the truth judges. Every step is a command of ``lcg`` and has
its output in a file beside its folder.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonargparse

from benchmarks.jobs import Job, console, minutes, run_all
from benchmarks.worlds import World
from lcg_lightning.evaluation.leaderboard import print_leaderboard, write_leaderboard
from lcg_lightning.files import refuse_occupied

MARK = ".lcg-demo"  # in folders that a demo made, and so may remove
NETWORKS = dict.fromkeys(("lcg", "lcg-paper", "regression", "rejection"), ("prior", "classifier")) | dict.fromkeys(
    ("arithmetic", "unguided"), ("prior",)
)
"""What each method needs; any other needs nothing."""
METHODS = ("lcg", "regression", "arithmetic", "unguided", "real", "oracle")
TASKS = ("conditional-3", "zero-shot", "editing")
EDIT_SCALES = {"lcg-paper": (2.0, 4.0), "arithmetic": (2.0,)}  # rows of their own
EXACT_METHODS = ("lcg", "regression", "arithmetic", "oracle")
CURVATURE = 0.3


def demo(
    out: Path = Path("runs/demo"),
    train: int = 10000,
    test: int = 1000,
    steps: int = 585,
    n: int = 300,
    n_edit: int = 300,
    workers: int = 2,
) -> None:
    """Run the whole path and write everything below one folder.

    Args:
        out: folder to make; what an earlier demo left there is removed, anything else is refused.
        train: rendered training images; the exact world has five times the rows.
        test: rendered test images, and as many for validation.
        steps: of the classifier's training; the prior takes four times as many, twice in the exact world.
        n: samples of each evaluation of generation.
        n_edit: samples of each evaluation of editing.
        workers: jobs at a time, one thread each.
    """
    begin = time.perf_counter()
    if (out / MARK).exists():
        shutil.rmtree(out)
    refuse_occupied(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    faces = World("synthfaces", out, sizes(train, test), {"prior": 4 * steps, "classifier": steps})
    exact = World(
        "exact", out / "exact", sizes(5 * train, test), {"prior": 2 * steps, "classifier": steps}, curvature=CURVATURE
    )
    stages = {
        "faces and stores": [*faces.faces(), faces.store(), exact.store()],
        "networks": [*faces.fits(), *exact.fits()],
        "evaluations": [*evaluations(faces, n, n_edit), *(edits(exact, method, n) for method in EXACT_METHODS)],
    }
    if failed := run_all([job for jobs in stages.values() for job in jobs], workers):
        raise SystemExit(f"failed: {', '.join(failed)}")
    print_leaderboard(write_leaderboard(out), console)
    console.print(minutes(stages))
    console.print(f"{(time.perf_counter() - begin) / 60:.1f} minutes. Everything is in {out}:")
    for path in sorted([*out.glob("*.md"), *out.glob("*.json"), *out.glob("*.png"), *out.glob("**/records/*/*.png")]):
        console.print(f"  {path}", highlight=False)


def sizes(train: int, test: int) -> dict[str, int]:
    return {"train": train, "val": test, "test": test}


def evaluations(world: World, n: int, n_edit: int) -> Iterator[Job]:
    """Every method on every task, and further scales of edits, the slowest first."""
    for method in METHODS:
        if method != "unguided":
            yield edits(world, method, n_edit)
    for method, scales in EDIT_SCALES.items():
        for scale in scales:
            yield edits(world, method, n_edit, scale=scale)
    for task in TASKS:
        if task != "editing":
            yield from (evaluation(world, task, method, n) for method in METHODS)


def edits(world: World, method: str, n: int, **options: float) -> Job:
    return evaluation(world, "editing", method, n, **options)


def evaluation(world: World, task: str, method: str, n: int, **options: Any) -> Job:
    """One evaluation with the networks that the method needs."""
    name = "-".join([task, method, *(f"{k}{v:g}" for k, v in options.items())])
    networks = {network: world.checkpoint(network, 0) for network in NETWORKS.get(method, ())}
    return world.evaluation(
        f"{world.name}/{name}", world.folder / "records" / name, task, method, n, networks | options
    )


if __name__ == "__main__":
    jsonargparse.auto_cli(demo, as_positional=False)

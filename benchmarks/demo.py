"""The whole path on SynthFaces: render, encode, fit, evaluate, leaderboard. ``make demo`` runs it."""

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonargparse
from rich.console import Console

from lcg_lightning.cli import run
from lcg_lightning.commands.encode import encode
from lcg_lightning.commands.render import render
from lcg_lightning.data.sources.celebahq import CelebAHQ
from lcg_lightning.evaluation.leaderboard import print_leaderboard, write_leaderboard
from lcg_lightning.files import refuse_occupied
from lcg_lightning.synthfaces.faces import SCHEMA

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TASKS = Path(__file__).resolve().parent / "tasks"
MARK = ".lcg-demo"  # in folders that a demo made, and so may remove
METHODS = ("lcg", "arithmetic", "unguided", "real", "oracle")
EDIT_SCALES = {"lcg": (1.0, 4.0), "arithmetic": (2.0, 4.0)}  # beside each method's default

console = Console()


def demo(
    out: Path = Path("runs/demo"),
    train: int = 10000,
    test: int = 1000,
    epochs: int = 30,
    n: int = 500,
    n_edit: int = 300,
) -> None:
    """Run the whole path and write everything below one folder.

    Args:
        out: folder to make; what an earlier demo left there is removed, anything else is refused.
        train: rendered training images.
        test: rendered test images.
        epochs: of the classifier; the prior gets four times as many.
        n: samples of each evaluation of generation.
        n_edit: samples of each evaluation of editing.
    """
    begin = time.perf_counter()
    if (out / MARK).exists():
        shutil.rmtree(out)
    refuse_occupied(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    faces, store = out / "faces", out / "store"
    with timed("Render faces"):
        render(faces, train=train, val=test, test=test)
    with timed("Encode into W"):
        encode(
            store,
            CelebAHQ(
                images=faces / "images",
                annotations=faces / "attributes.txt",
                measure_files=[faces / "pose.txt", faces / "age.txt"],
                measures=[SCHEMA["Age"], SCHEMA["Yaw"]],
                partition=faces / "splits.txt",
            ),
        )
    for name, times in (("prior", 4), ("classifier", 1)):
        with timed(f"Fit {name}"):
            fit(out, name, times * epochs)
    for task in ("conditional-1", "conditional-3", "zero-shot", "editing"):
        for method in METHODS:
            if method == "unguided" and task == "editing":
                continue
            with timed(f"Evaluate {method} on {task}"):
                evaluate(out, task, method, n_edit if task == "editing" else n)
    for method, scales in EDIT_SCALES.items():
        for scale in scales:
            with timed(f"Evaluate {method} on editing, scale {scale:g}"):
                evaluate(out, "editing", method, n_edit, scale=scale)
    rows = write_leaderboard(out)
    print_leaderboard(rows, console)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{(time.perf_counter() - begin) / 60:.1f} minutes, {peak:.2f} GiB at most. Everything is in {out}:")
    for path in sorted([*out.glob("*.md"), *out.glob("*.json"), *out.glob("*.png"), *out.glob("records/*/*.png")]):
        console.print(f"  {path}", highlight=False)


def fit(out: Path, name: str, epochs: int) -> None:
    """Fits prior or classifier on the demo's store."""
    run(
        [
            "fit",
            f"--config={CONFIGS / name / 'synthfaces.yaml'}",
            f"--data.init_args.store={out / 'store'}",
            f"--trainer.max_epochs={epochs}",
            f"--trainer.check_val_every_n_epoch={max(1, epochs // 3)}",
            f"--trainer.default_root_dir={out / name}",
        ]
    )


def evaluate(out: Path, task: str, method: str, n: int, **options: float) -> None:
    """One evaluation run; options are the method's."""
    name = "-".join([task, method, *(f"{k}{v:g}" for k, v in options.items())])
    more = [f"--model.init_args.method.init_args.{k}={v}" for k, v in options.items()]
    run([*evaluation(out, task, method, out / "records" / name), f"--model.init_args.n={n}", *more])


def evaluation(demo_folder: Path, task: str, method: str, out: Path) -> list[str]:
    """Arguments of ``lcg`` that evaluate a method on a task, with what a demo left in its folder."""
    files = [CONFIGS / "evaluation/base.yaml", CONFIGS / f"evaluation/{method}.yaml", TASKS / f"{task}.yaml"]
    networks = {"lcg": ("prior", "classifier"), "real": (), "oracle": ()}.get(method, ("prior",))
    truth = [f"--model.init_args.method.init_args.faces={demo_folder / 'faces'}"] if method == "oracle" else []
    return [
        "test",
        *(f"--config={file}" for file in files),
        f"--data.init_args.store={demo_folder / 'store'}",
        f"--model.init_args.images={demo_folder / 'faces/images'}",
        f"--model.init_args.out={out}",
        *(f"--model.init_args.method.init_args.{k}={demo_folder / k / 'last.ckpt'}" for k in networks),
        *truth,
    ]


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Says what begins and how long it took."""
    console.rule(what, align="left")
    begin = time.perf_counter()
    yield
    console.print(f"{what}: {time.perf_counter() - begin:.1f} s", highlight=False)


if __name__ == "__main__":
    jsonargparse.auto_cli(demo, as_positional=False)

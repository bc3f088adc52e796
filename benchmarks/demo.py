"""The whole path on SynthFaces: render, encode, fit, evaluate, leaderboard. ``make demo`` runs it.

A short second part does the same in the exact world, where the truth judges.
"""

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
from lcg_lightning.data.sources.exact import ExactFaces
from lcg_lightning.evaluation.leaderboard import print_leaderboard, write_leaderboard
from lcg_lightning.files import refuse_occupied
from lcg_lightning.synthfaces.faces import SCHEMA

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TASK_FILES = Path(__file__).resolve().parent / "tasks"
MARK = ".lcg-demo"  # in folders that a demo made, and so may remove
NETWORKS = dict.fromkeys(("lcg", "regression", "rejection"), ("prior", "classifier")) | dict.fromkeys(
    ("arithmetic", "unguided"), ("prior",)
)
"""What each method needs; any other needs nothing."""
METHODS = ("lcg", "regression", "arithmetic", "unguided", "real", "oracle")
TASKS = ("conditional-3", "zero-shot", "editing")
EDIT_SCALES = {"lcg": (2.0, 4.0), "arithmetic": (2.0,)}  # beside each method's default
CURVATURE = 0.3

console = Console()


def demo(
    out: Path = Path("runs/demo"),
    train: int = 10000,
    test: int = 1000,
    epochs: int = 15,
    n: int = 300,
    n_edit: int = 300,
) -> None:
    """Run the whole path and write everything below one folder.

    Args:
        out: folder to make; what an earlier demo left there is removed, anything else is refused.
        train: rendered training images.
        test: rendered test images.
        epochs: of the classifier; the prior gets four times as many. The exact world has five times the rows, and
            the classifier takes as many steps there, the prior twice as many.
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
            fit(out, name, times * epochs, train)
    for task in TASKS:
        for method in METHODS:
            if method == "unguided" and task == "editing":
                continue
            with timed(f"Evaluate {method} on {task}"):
                evaluate(out, task, method, n_edit if task == "editing" else n)
    for method, scales in EDIT_SCALES.items():
        for scale in scales:
            with timed(f"Evaluate {method} on editing, scale {scale:g}"):
                evaluate(out, "editing", method, n_edit, scale=scale)
    exact = out / "exact"
    with timed("Draw latents of the exact world"):
        generator = {"path": "synthfaces-exact", "curvature": CURVATURE}
        encode(exact / "store", ExactFaces(train=5 * train, val=test, test=test), generator)  # rows cost nothing here
    for name, times in (("prior", 2), ("classifier", 1)):
        with timed(f"Fit {name} in the exact world"):
            fit(exact, name, max(1, times * epochs // 5), 5 * train)
    for method in ("lcg", "regression", "arithmetic", "oracle"):
        with timed(f"Evaluate {method} on editing in the exact world"):
            evaluate(exact, "editing", method, n)
    rows = write_leaderboard(out)
    print_leaderboard(rows, console)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{(time.perf_counter() - begin) / 60:.1f} minutes, {peak:.2f} GiB at most. Everything is in {out}:")
    for path in sorted([*out.glob("*.md"), *out.glob("*.json"), *out.glob("*.png"), *out.glob("**/records/*/*.png")]):
        console.print(f"  {path}", highlight=False)


def fit(folder: Path, name: str, epochs: int, rows: int) -> None:
    """Fits prior or classifier on the store in a folder, whose train split has so many rows."""
    run(
        [
            "fit",
            f"--config={CONFIGS / name / 'synthfaces.yaml'}",
            f"--data.init_args.store={folder / 'store'}",
            f"--trainer.max_epochs={epochs}",
            f"--model.init_args.decay_steps={epochs * max(1, rows // 256)}",
            f"--trainer.check_val_every_n_epoch={max(1, epochs // 3)}",
            f"--trainer.default_root_dir={folder / name}",
        ]
    )


def evaluate(folder: Path, task: str, method: str, n: int, **options: float) -> None:
    """One evaluation run with what lies in a folder; options are the method's."""
    name = "-".join([task, method, *(f"{k}{v:g}" for k, v in options.items())])
    more = [f"--model.init_args.method.init_args.{k}={v}" for k, v in options.items()]
    run([*evaluation(folder, task, method, folder / "records" / name), f"--model.init_args.n={n}", *more])


def evaluation(folder: Path, task: str, method: str, out: Path) -> list[str]:
    """Arguments of ``lcg`` that evaluate a method on a task, with the store and the networks in a folder.

    Where the folder holds no faces, its latents are those of the exact world.
    """
    faces = folder / "faces"
    base = "base" if faces.exists() else "exact"
    files = [CONFIGS / f"evaluation/{base}.yaml", CONFIGS / f"evaluation/{method}.yaml", TASK_FILES / f"{task}.yaml"]
    options = {name: folder / name / "last.ckpt" for name in NETWORKS.get(method, ())}
    if base == "base" and method == "oracle":
        options["faces"] = faces
    return [
        "test",
        *(f"--config={file}" for file in files),
        f"--data.init_args.store={folder / 'store'}",
        *([f"--model.init_args.images={faces / 'images'}"] if base == "base" else []),
        f"--model.init_args.out={out}",
        *(f"--model.init_args.method.init_args.{key}={value}" for key, value in options.items()),
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

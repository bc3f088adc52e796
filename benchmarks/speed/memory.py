"""Peak memory of training and evaluation as stores grow: private memory, without the pages of memory-mapped files.

The kernel may drop pages of a mapped store at any time, so they are no need of the process.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.commands import MOMENT, momentary
from benchmarks.speed.measure import Row, compare
from benchmarks.speed.stores import random_store
from benchmarks.worlds import CONFIGS, World

AT_MOST, WAIT = 1.1, 0.05
SIZES = (10_000, 1_000_000)
DIM = 512


def rows(tiny: bool) -> list[Row]:
    sizes = (400, 4_000) if tiny else SIZES
    found: dict[str, dict[str, list[float]]] = {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for what, argv in {"lcg fit": fitting(root, n), "lcg test": testing(root, n)}.items():
                found.setdefault(what, {})[f"{n:,} rows"] = [peak(argv)]
    small, large = (f"{n:,} rows" for n in sizes)
    notes = {"lcg fit": f"prior, {DIM}-d", "lcg test": "LCG edits, exact world, 64-d"}
    return [
        compare(f"{what}, {notes[what]}", costs, large, small, at_most=AT_MOST, unit="GiB")
        for what, costs in found.items()
    ]


def fitting(root: Path, n: int) -> list[str]:
    store = random_store(root / "store", n, DIM)
    return [
        "fit",
        f"--config={CONFIGS / 'prior/synthfaces.yaml'}",
        f"--data.init_args.store={store}",
        "--trainer.max_epochs=-1",
        "--trainer.max_steps=50",
        f"--trainer.default_root_dir={root / 'prior'}",
    ]


def testing(root: Path, n: int) -> list[str]:
    """Evaluates networks that were trained for a moment: memory does not depend on what they learned."""
    rows = {"train": n, "val": 256, "test": 256}
    world = World("exact", root / "exact", rows, MOMENT, curvature=0.3)
    return list(world.evaluation("lcg", root / "record", "editing", "lcg", 200, momentary(world)).argv)


def peak(argv: list[str]) -> float:
    """The largest private memory of a command, in GiB."""
    command = [sys.executable, "-m", "lcg_lightning", *argv]
    most = 0
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would stop a command that says much
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as process:
            while process.poll() is None:
                most = max(most, private(process.pid))
                time.sleep(WAIT)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(argv)}: {said.read().decode()[-500:]}")
    return most / 2**20


def private(pid: int) -> int:
    """Private memory of a running process, in KiB."""
    try:
        with Path(f"/proc/{pid}/status").open() as file:
            return next((int(line.split()[1]) for line in file if line.startswith("RssAnon")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0

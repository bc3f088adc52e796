"""How long ``lcg`` takes to answer, beside ``python -c "import torch"``; every round is a new process."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.measure import Row, compare, take_turns
from benchmarks.worlds import World

FIRST_PICTURE, ROUNDS = 4.0, 5
"""Seconds that ``lcg sample`` may take beyond importing torch."""
TORCH, SAMPLE = "import torch", "lcg sample, 8 images"


def rows(tiny: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "empty").mkdir()
        world = World("synthfaces", root, {"train": 300, "val": 31, "test": 31}, {"prior": 2, "classifier": 2})
        for job in (*world.faces(), world.store(), *world.fits()):
            lcg(job.argv)
        networks = [f"--method.{name}={world.checkpoint(name, 0)}" for name in world.steps]
        out = iter(range(2 * ROUNDS))
        contestants = {
            TORCH: lambda: python("-c", "import torch"),
            "lcg --help": lambda: lcg(["--help"]),
            "lcg --version": lambda: lcg(["--version"]),
            "lcg leaderboard, empty folder": lambda: lcg(["leaderboard", str(root / "empty")], status=2),
            "lcg generator info": lambda: lcg(["generator", "info", "synthfaces"]),
            SAMPLE: lambda: lcg(
                ["sample", "Smiling", str(root / "store"), str(root / f"out{next(out)}"), "--n=8", *networks]
            ),
        }
        costs = take_turns(contestants, 2 if tiny else ROUNDS)
    found = [compare(name, costs, name, TORCH) for name in contestants if name not in (TORCH, SAMPLE)]
    beyond = [mine - torch for mine, torch in zip(costs[SAMPLE], costs[TORCH], strict=True)]
    mark = {SAMPLE: beyond, "the mark": [FIRST_PICTURE] * len(beyond)}
    return [*found, compare(SAMPLE, mark, SAMPLE, "the mark", at_most=1.0, note="seconds beyond importing torch")]


def lcg(argv: Sequence[str], status: int = 0) -> None:
    python("-m", "lcg_lightning", *argv, status=status)


def python(*argv: str, status: int = 0) -> None:
    done = subprocess.run([sys.executable, *argv], capture_output=True, check=False, text=True)
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr[-500:]}")

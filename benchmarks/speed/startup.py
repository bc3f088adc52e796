"""How long ``lcg`` takes to answer, beside ``python -c "import torch"``; every round is a new process."""

import tempfile
from pathlib import Path

from benchmarks.speed.commands import MOMENT, lcg, momentary, python
from benchmarks.speed.measure import Row, compare, take_turns
from benchmarks.worlds import World

FIRST_PICTURE, ROUNDS = 4.0, 5
"""Seconds that ``lcg sample`` may take beyond importing torch."""
TORCH, SAMPLE = "import torch", "lcg sample, 8 images"


def rows(tiny: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "empty").mkdir()
        world = World("synthfaces", root, {"train": 300, "val": 31, "test": 31}, MOMENT)
        networks = [f"--method.{name}={path}" for name, path in momentary(world).items()]
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

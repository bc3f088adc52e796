"""How long ``lcg`` takes to answer, as ratios to ``python -c "import torch"``.

Rounds of the contestants alternate and the median is taken, so that load from elsewhere falls on all alike.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonargparse
from rich.console import Console
from rich.table import Table

LCG = ["-m", "lcg_lightning"]
CONTESTANTS = {
    "import torch": ["-c", "import torch"],
    "import lightning": ["-c", "import lightning"],
    "lcg --help": [*LCG, "--help"],
    "lcg --version": [*LCG, "--version"],
    "lcg smaple": [*LCG, "smaple"],
    "lcg render TAKEN": [*LCG, "render", "."],
    "lcg test, folder taken": [*LCG, "test", "--model.init_args.out=."],
    "lcg leaderboard EMPTY": [*LCG, "leaderboard", "empty"],
    "lcg generator info": [*LCG, "generator", "info", "synthfaces"],
    "lcg render, one face": [*LCG, "render", "{new}", "--train=1", "--val=0", "--test=0"],
    "lcg fit --help": [*LCG, "fit", "--help"],
}


def main(rounds: int = 5) -> None:
    """Print the median seconds of every command and their ratios.

    Args:
        rounds: runs of each command.
    """
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "empty").mkdir()
        for i in range(rounds):
            for name, arguments in CONTESTANTS.items():
                command = [sys.executable, *(a.replace("{new}", f"new{i}") for a in arguments)]
                begin = time.perf_counter()
                subprocess.run(command, cwd=folder, capture_output=True, check=False)
                seconds[name].append(time.perf_counter() - begin)
    table = Table("command", "s", "ratio to import torch")
    reference = statistics.median(seconds["import torch"])
    for name, runs in seconds.items():
        table.add_row(name, f"{statistics.median(runs):.2f}", f"{statistics.median(runs) / reference:.2f}")
    Console().print(table)


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=False)

"""Efficiency of two processes against one, with one thread each: T1 / (2 T2) for the same work by the real commands.

T is the time of a run less that of one with hardly any work, so what every process does once cancels: imports, loading,
joining. What each must do for itself, such as the bootstrap over all samples, counts.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.speed.commands import MOMENT, lcg, momentary
from benchmarks.speed.measure import Row, compare, take_turns, unmeasured
from benchmarks.speed.stores import random_store
from benchmarks.worlds import CONFIGS, World

ROUNDS = 5  # one of the tiny sizes, as every round is four commands a row
FACES, SAMPLES = (64, 12_288), (20, 1_500)
SIZES = {"demo": (128, 512, 4, (10, 210)), "DiffAE": (512, 2048, 10, (2, 12))}
"""Latent width, hidden width, layers, steps of one process."""
TINY_FACES, TINY_SAMPLES, TINY_SIZES = (16, 80), (4, 12), {"tiny": (8, 16, 3, (2, 6))}
BOTH = ("--trainer.devices=2", "--trainer.strategy=ddp")

Command = Callable[[int, Path, int], Sequence[str]]
"""(amount of work, folder to make, processes) to the arguments of ``lcg``."""


def rows(tiny: bool) -> list[Row]:
    if (os.cpu_count() or 1) < 2:
        return [unmeasured("two processes", "the machine has one core")]
    with tempfile.TemporaryDirectory() as folder:
        root, rounds = Path(folder), 1 if tiny else ROUNDS
        found = [
            fitting(root / size, 1_000 if tiny else 10_000, rounds, size, *numbers)
            for size, numbers in (TINY_SIZES if tiny else SIZES).items()
        ]
        worlds = {
            n: World("synthfaces", root / str(n), {"train": n, "val": 256, "test": 256}, MOMENT)
            for n in (TINY_FACES if tiny else FACES)
        }
        return [
            *found,
            encoding(root, worlds, rounds),
            testing(root, worlds, TINY_SAMPLES if tiny else SAMPLES, rounds),
        ]


def fitting(
    root: Path, n: int, rounds: int, size: str, dim: int, hidden: int, layers: int, steps: tuple[int, int]
) -> Row:
    store = random_store(root / "store", n, dim)

    def command(steps: int, out: Path, processes: int) -> Sequence[str]:
        return [
            "fit",
            f"--config={CONFIGS / 'prior/synthfaces.yaml'}",
            *(f"--model.init_args.hidden={hidden}", f"--model.init_args.layers={layers}"),
            f"--data.init_args.store={store}",
            *("--trainer.max_epochs=-1", f"--trainer.max_steps={steps // processes}", "--trainer.limit_val_batches=0"),
            f"--trainer.default_root_dir={out}",
            *(BOTH if processes == 2 else ()),
        ]

    where = f"lcg fit, prior, {size}: {dim}-d x {hidden} x {layers}"
    return efficiency(where, root, command, steps, rounds, "batches of 256 on each, so two take half as many steps")


def encoding(root: Path, worlds: dict[int, World], rounds: int) -> Row:
    for world in worlds.values():
        lcg(world.faces()[0].argv)

    def command(n: int, out: Path, processes: int) -> Sequence[str]:
        strategy = "ddp" if processes == 2 else "auto"
        return [*worlds[n].store().argv, f"--out={out}", f"--devices={processes}", f"--strategy={strategy}"]

    few, many = worlds
    note = f"{many - few:,} PNG files of 64 pixels; one process merges and writes the store of all"
    return efficiency("lcg encode", root, command, (few, many), rounds, note)


def testing(root: Path, worlds: dict[int, World], samples: tuple[int, int], rounds: int) -> Row:
    """Evaluates networks that were trained for a moment: time does not depend on what they learned."""
    world = worlds[min(worlds)]
    networks = momentary(world)

    def command(n: int, out: Path, processes: int) -> Sequence[str]:
        more = BOTH if processes == 2 else ()
        return world.evaluation("lcg", out, "conditional-3", "lcg", n, networks, *more).argv

    return efficiency("lcg test", root, command, samples, rounds, "LCG, three attributes; sampled, decoded and judged")


def efficiency(where: str, root: Path, command: Command, work: tuple[int, int], rounds: int, note: str) -> Row:
    def contestant(processes: int) -> Callable[[], float]:
        def spent() -> float:
            """Seconds of the work, times the processes that share it."""
            little, much = (seconds(command(amount, root / "out", processes), root / "out") for amount in work)
            return processes * (much - little)

        return spent

    one, two = "one process", "two, time x 2"
    costs = take_turns({one: contestant(1), two: contestant(2)}, rounds, warm_up=0)
    if min(*costs[one], *costs[two]) <= 0:
        return unmeasured(where, "the work took no longer than set-up: too little of it, or other load on the machine")
    return compare(where, costs, two, one, faster=True, note=note)


def seconds(argv: Sequence[str], out: Path) -> float:
    """How long a command takes; what it wrote to ``out`` is removed."""
    begin = time.perf_counter()
    lcg(argv, threads=1)
    taken = time.perf_counter() - begin
    shutil.rmtree(out)
    return taken

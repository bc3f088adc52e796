"""How much of an evaluation is spent in networks: sampling, decoding, judging and features.

The second of two evaluations in one process is measured, as in sweeps and the benchmark: the first has read the
reference and fitted what is fitted. Networks are trained for a moment; their cost does not depend on what they learned.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from benchmarks.speed.commands import MOMENT, momentary
from benchmarks.speed.measure import Row, compare
from benchmarks.worlds import World
from lcg_lightning.cli import run
from lcg_lightning.generators.stylegan2 import StyleGAN2Generator
from lcg_lightning.kept import load_once
from lcg_lightning.methods.lcg import LatentClassifierGuidance

AT_LEAST, ROUNDS = 0.9, 5
TASKS = ("conditional-3", "editing")


def rows(tiny: bool) -> list[Row]:
    n = 20 if tiny else 2000
    load_once()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        root = Path(folder)
        world = World("synthfaces", root, {"train": 2 * n, "val": n, "test": n}, MOMENT)
        networks = momentary(world)
        found = []
        for task in TASKS:
            costs: dict[str, list[float]] = {"whole evaluation": [], "networks": []}
            for i in range(1 + (2 if tiny else ROUNDS)):
                job = world.evaluation(task, root / f"{task}-{i}", task, "lcg", n, networks)
                begin = time.perf_counter()
                with networks_timed() as clock:
                    run(job.argv)
                if i:
                    costs["whole evaluation"].append(time.perf_counter() - begin)
                    costs["networks"].append(clock.seconds)
            found.append(compare(f"{task}, n {n:,}", costs, "whole evaluation", "networks", at_least=AT_LEAST))
    return found


class Clock:
    """Seconds within the outermost of the functions that it times."""

    def __init__(self) -> None:
        self.seconds, self.depth, self.begin = 0.0, 0, 0.0

    def enter(self, *_: Any) -> None:
        if self.depth == 0:
            self.begin = time.perf_counter()
        self.depth += 1

    def leave(self, *_: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.begin

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            self.enter()
            try:
                return function(*args, **options)
            finally:
                self.leave()

        return wrapper


@contextmanager
def networks_timed() -> Iterator[Clock]:
    """Times every network's forward pass, and what LCG and the generator do around theirs."""
    clock = Clock()
    hooks = [
        register_module_forward_pre_hook(clock.enter),
        register_module_forward_hook(clock.leave, always_call=True),
    ]
    methods = [
        (LatentClassifierGuidance, "generate"),
        (LatentClassifierGuidance, "edit"),
        (StyleGAN2Generator, "decode"),
    ]
    patches = [patch.object(owner, name, clock.timed(getattr(owner, name))) for owner, name in methods]
    for each in patches:
        each.start()
    try:
        yield clock
    finally:
        for each in patches:
            each.stop()
        for hook in hooks:
            hook.remove()

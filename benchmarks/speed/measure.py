"""Measurements side by side: contestants take turns in one process, and a row compares two of them."""

import gc
import importlib
import multiprocessing
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count, getloadavg
from pathlib import Path
from typing import Any

import torch

from lcg_lightning.commands.products import faster_products
from lcg_lightning.commands.quiet import quiet

ROUNDS = 7
"""Turns of every contestant, after one that is not counted."""
LIBRARIES = ("torch", "lightning", "diffusers", "k-diffusion", "torchdiffeq", "clean-fid", "torchmetrics", "scipy")


@dataclass(frozen=True)
class Row:
    """One comparison, or the reason why there is none."""

    name: str
    ours: str = ""
    against: str = ""
    ratio: float | None = None
    """Median over the rounds: our cost over theirs, or, for a row with ``at_least``, their cost over ours."""
    low: float | None = None
    """Lower quartile of the rounds' ratios."""
    high: float | None = None
    """Upper quartile."""
    at_most: float | None = None
    at_least: float | None = None
    costs: tuple[float, float] | None = None
    """Median costs, ours and theirs, in ``unit``."""
    unit: str = "s"
    rounds: int = 0
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within the mark; None without a mark or a measurement."""
        if self.ratio is None or (self.at_most is None and self.at_least is None):
            return None
        return self.ratio <= self.at_most if self.at_most is not None else self.ratio >= (self.at_least or 0.0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


def unmeasured(name: str, reason: str, **mark: float) -> Row:
    """A row that says why it holds no figure."""
    return Row(name, note=reason, **mark)  # type: ignore[arg-type]


Costs = Mapping[str, list[float]]
"""Costs of each contestant, one per round."""


def take_turns(contestants: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, warm_up: int = 1) -> Costs:
    """Seconds of every contestant in every round. What a contestant returns is ignored, unless it is a float:
    then that is its cost, for contestants that time only a part of what they do."""
    costs: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(warm_up + rounds):
        for name, run in contestants.items():
            gc.collect()  # trainers refer to themselves, and each would hold its networks for long
            begin = time.perf_counter()
            own = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            cost = own if isinstance(own, float) else time.perf_counter() - begin
            if i >= warm_up:
                costs[name].append(cost)
    return costs


def compare(
    name: str,
    costs: Costs,
    ours: str,
    against: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    faster: bool = False,
    unit: str = "s",
    note: str = "",
) -> Row:
    """The row of two contestants. ``at_least`` and ``faster`` ask how many times faster ours is."""
    mine, theirs = costs[ours], costs[against]
    up = faster or at_least is not None
    ratios = [b / a if up else a / b for a, b in zip(mine, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Row(
        name, ours, against, middle, low, high, at_most, at_least,
        (statistics.median(mine), statistics.median(theirs)), unit, len(ratios), note,
    )  # fmt: skip


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu,
        "cores": cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "commit": commit.stdout.strip(),
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load before": round(getloadavg()[0], 2),
    }


def measure(part: str, tiny: bool) -> dict[str, Any]:
    """The machine and the rows of a part, as plain JSON values."""
    # image readers start as in a command, not by spawn as this process did
    multiprocessing.set_start_method(None, force=True)
    about = machine()
    module = importlib.import_module(f"benchmarks.speed.{part}")
    quiet()
    with faster_products():
        rows = module.rows(tiny)
    return {"machine": about, "rows": [row.to_json() for row in rows]}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

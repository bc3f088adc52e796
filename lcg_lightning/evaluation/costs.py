"""What the answers of a method cost: evaluations, seconds, and peak memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy

from lcg_lightning.methods.base import Method


class Costs:
    """The costs of this process's answers, and those of all processes; the fields of a record that hold them.

    Args:
        method: it counts its evaluations itself.
        steps: number of steps of an edit; None for generation.
        device: where the method computes.
    """

    def __init__(self, method: Method, steps: int | None, device: torch.device) -> None:
        self.method, self.steps, self.device = method, steps, device
        self.seconds, self.answered = 0.0, 0

    @contextmanager
    def of(self, samples: int) -> Iterator[None]:
        """Times the answers to some samples, which are made within the block."""
        begin = _clock(self.device)
        yield
        self.seconds += _clock(self.device) - begin
        self.answered += samples

    def own(self) -> dict[str, Any]:
        """``nfe``, ``seconds`` and ``memory`` of this process."""
        nfe = self.method.nfe if self.steps is None else self.steps * self.method.edit_nfe
        return {"nfe": nfe, "seconds": self.seconds, "memory": dict([_peak_memory(self.device)])}

    def pooled(self, strategy: Strategy) -> dict[str, Any]:
        """The same of all processes: the mean of evaluations over samples, and the largest time and memory."""
        own = self.own()
        ((kind, memory),) = own["memory"].items()
        tensor = partial(torch.tensor, device=self.device, dtype=torch.float64)
        peaks = strategy.reduce(tensor([own["seconds"], memory]), reduce_op="max")
        spent = strategy.reduce(tensor([own["nfe"] * self.answered, self.answered]), reduce_op="sum")
        seconds, memory = peaks.tolist()
        return {"nfe": (spent[0] / spent[1]).item(), "seconds": seconds, "memory": {kind: int(memory)}}


def _clock(device: torch.device) -> float:
    """Seconds, after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_memory(device: torch.device) -> tuple[str, int]:
    """This process's peak memory in bytes, and what it is of; see :class:`~lcg_lightning.evaluation.records.Record`."""
    if device.type == "cuda":
        return "cuda", torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in KiB elsewhere
    return "resident", peak if sys.platform == "darwin" else 1024 * peak

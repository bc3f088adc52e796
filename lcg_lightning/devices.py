"""Copies to an accelerator that neither side waits for."""

import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device; from CPU to GPU by way of pinned memory, so that the CPU goes on without waiting.

    A plain ``.to`` waits until the GPU has done all that it was given before, which leaves it idle between the steps of
    a loop.
    """
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)

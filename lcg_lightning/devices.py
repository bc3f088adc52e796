"""Devices: refusing one that is not there, and copies to an accelerator that neither side waits for."""

import torch
from torch import Tensor

from lcg_lightning.errors import UserError


def refuse_missing(device: str) -> None:
    """Raises a UserError if a device cannot be used."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device {device!r} cannot be used ({reason}); try cpu") from None


def upload(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device; from CPU to GPU by way of pinned memory, so that the CPU goes on without waiting.

    A plain ``.to`` waits until the GPU has done all that it was given before, which leaves it idle between the steps of
    a loop.
    """
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)

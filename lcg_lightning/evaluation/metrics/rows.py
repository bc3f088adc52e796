"""Rows of float64 numbers by sample index, kept in a metric's state and gathered from all processes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from lcg_lightning.errors import UserError


def flat(index: Tensor, values: Tensor) -> Tensor:
    """Indices (B,) and values (B, C) as one-dimensional float64, the only shape that every process can gather.

    torchmetrics cannot gather other shapes from a process without samples.
    """
    columns = (index.to(values.device, torch.float64)[:, None], values.to(torch.float64))
    return torch.cat(columns, 1).flatten()


def unflat(state: Tensor | Sequence[Tensor], width: int, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The indices (N,) and values (N, width) of all rows in a state, sorted by index.

    Args:
        state: results of :func:`flat`, gathered or not.
        width: C, the number of values in a row.
        name: the metric's name in messages.

    Raises:
        UserError: there is no row, or an index occurs twice.
    """
    found = dim_zero_cat(state).cpu().numpy() if len(state) else np.empty(0)  # type: ignore[arg-type]
    rows = found.reshape(-1, 1 + width)
    if not len(rows):
        raise UserError(f"{name}: no sample was evaluated; give the split at least one")
    rows = rows[np.argsort(rows[:, 0])]
    twice = rows[1:][np.diff(rows[:, 0]) == 0]
    if len(twice):
        raise UserError(f"{name}: sample {int(twice[0, 0])} was counted twice; use a sampler that does not pad")
    return rows[:, 0].astype(np.int64), rows[:, 1:]

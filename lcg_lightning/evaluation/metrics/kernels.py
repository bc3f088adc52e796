"""Distances of two sets by a kernel: unbiased U-statistics whose interval is a jackknife over groups."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.evaluation.estimates import Estimate
from lcg_lightning.evaluation.metrics.intervals import jackknife

GROUPS = 10
_BLOCK = 2**22  # entries of a kernel matrix held at once

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows (B, d) and (M, d) to a matrix (B, M) float64."""


def group_sums(kernel: Kernel, x: Tensor, y: Tensor, x_index: Tensor, y_index: Tensor, apart: bool) -> Tensor:
    """Sums (10, 10) of a kernel matrix over pairs of groups, which are the indices modulo 10.

    Args:
        kernel: the kernel.
        x: rows (N, d).
        y: rows (M, d).
        x_index: (N,) int64.
        y_index: (M,) int64.
        apart: whether pairs of rows in the same place, (i, i), are left out.
    """
    groups = torch.nn.functional.one_hot(y_index % GROUPS, GROUPS).double()
    sums = torch.zeros(GROUPS, GROUPS, dtype=torch.float64)
    size = max(1, _BLOCK // max(1, len(y)))
    for start in range(0, len(x), size):
        block = kernel(x[start : start + size], y)
        if apart:
            block.diagonal(start).zero_()
        sums.index_add_(0, x_index[start : start + size] % GROUPS, block @ groups)
    return sums


def without_each_group(sums: list[Tensor], statistic: Callable[..., float]) -> Estimate:
    """A statistic of the totals of some :func:`group_sums`, with its jackknife interval over the groups.

    The bounds are NaN if there are fewer than two groups, or too few samples without one.

    Args:
        sums: (10, 10) each, or (10,) of rows that belong to no pair.
        statistic: function of one total for each of the sums.
    """
    value = statistic(*(float(s.sum()) for s in sums))
    used = [g for g in range(GROUPS) if any(s[g].any() for s in sums)]
    left_out = []
    for g in used:
        keep = [h for h in range(GROUPS) if h != g]
        left_out.append(statistic(*(float((s[keep][:, keep] if s.dim() == 2 else s[keep]).sum()) for s in sums)))
    if len(used) < 2 or not np.isfinite(left_out).all():
        return Estimate(value, float("nan"), float("nan"))
    return jackknife(value, left_out)

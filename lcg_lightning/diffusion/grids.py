"""Sampling grids: the times at which a sampler evaluates its model, and the noise levels that it visits."""

from typing import NamedTuple

import numpy as np
import torch

from lcg_lightning.diffusion.schedule import NoiseSchedule
from lcg_lightning.errors import UserError


class Grid(NamedTuple):
    """The n times at which a sampler evaluates its model, and the n + 1 noise levels that it visits."""

    t: tuple[float, ...]
    """(n,) decreasing times in 0 .. T-1, fractional between the schedule's levels."""
    alpha_bar: tuple[float, ...]
    """(n + 1,) increasing levels: that of each time, then the one at which sampling ends (1.0 is clean)."""


def uniform_grid(schedule: NoiseSchedule, n: int) -> Grid:
    """A grid of n equal steps in t that starts at T-1 and ends clean.

    The "trailing" spacing of arXiv 2305.08891, table 2. The last evaluation is at T/n - 1, so
    t = 0 is met only when n = T.

    Raises:
        UserError: n is not within 1 .. T.
    """
    _check_steps(n, 1, schedule.num_steps)
    t = [round(schedule.num_steps * (n - i) / n) - 1 for i in range(n)]
    return Grid(tuple(map(float, t)), (*schedule.alpha_bar[t].tolist(), 1.0))


def full_grid(schedule: NoiseSchedule) -> Grid:
    """Every step of the schedule, then clean."""
    return uniform_grid(schedule, schedule.num_steps)


def logsnr_grid(schedule: NoiseSchedule, n: int) -> Grid:
    """A grid of n levels evenly spaced in log-SNR, from the schedule's noisiest to its cleanest, then clean.

    The grid of DPM-Solver (Lu et al., arXiv 2206.00927, section 3.4), on which few steps suffice. The levels
    are exact; their times are interpolated linearly in log-SNR between the schedule's own.

    Raises:
        UserError: n is not within 2 .. T.
    """
    _check_steps(n, 2, schedule.num_steps)
    known = torch.logit(schedule.alpha_bar).numpy()  # (T,) log-SNR, decreasing
    wanted = np.linspace(known[-1], known[0], n)
    t = np.interp(wanted, known[::-1], np.arange(schedule.num_steps)[::-1])
    levels = torch.sigmoid(torch.from_numpy(wanted)).tolist()
    return Grid(tuple(t.tolist()), (*levels, 1.0))


def _check_steps(n: int, low: int, high: int) -> None:
    if not low <= n <= high:
        raise UserError(f"sampling grid: {n} steps; this grid takes {low} to {high}")

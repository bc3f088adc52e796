"""Sampling grids."""

import math
from typing import NamedTuple

import numpy as np
import torch

from lcg_lightning.diffusion.schedule import NoiseSchedule
from lcg_lightning.errors import UserError

LOGSNR = (-7.0, 5.0)
"""The log-SNR that sampling covers. Noisier levels hold nothing of a standardized latent; a cleaner one has noise of
0.08 standard deviations, which the last evaluation removes."""


class Grid(NamedTuple):
    """The n times at which a sampler evaluates its model, and the n + 1 noise levels that it visits."""

    t: tuple[float, ...]
    """(n,) decreasing times in 0 .. T-1, fractional between the schedule's levels."""
    alpha_bar: tuple[float, ...]
    """(n + 1,) increasing levels: one per time, then the level at which sampling ends (1.0 is clean)."""


def uniform_grid(schedule: NoiseSchedule, n: int) -> Grid:
    """A grid of n equal steps in t that starts at T-1 and ends clean.

    This is the "trailing" spacing of arXiv 2305.08891, table 2. The last evaluation is at T/n - 1, so t = 0 is
    evaluated only when n = T.

    Raises:
        UserError: n is not within 1 .. T.
    """
    check_steps(n, 1, schedule.num_steps)
    t = [round(schedule.num_steps * (n - i) / n) - 1 for i in range(n)]
    return Grid(tuple(map(float, t)), (*schedule.alpha_bar[t].tolist(), 1.0))


def logsnr_grid(schedule: NoiseSchedule, n: int, low: float = LOGSNR[0], high: float = LOGSNR[1]) -> Grid:
    """A grid of n levels evenly spaced in log-SNR, from low to high, then clean.

    This is the grid of DPM-Solver (Lu et al., arXiv 2206.00927, section 3.4), on which few steps suffice. Its ends are
    cut to the schedule's own range. The levels are exact; their times are interpolated by
    :meth:`NoiseSchedule.time_at`.

    Raises:
        UserError: n is not within 2 .. T.
    """
    check_steps(n, 2, schedule.num_steps)
    noisiest, cleanest = schedule.logsnr[-1].item(), schedule.logsnr[0].item()
    wanted = np.linspace(max(low, noisiest), min(high, cleanest), n)
    levels = torch.sigmoid(torch.from_numpy(wanted)).tolist()
    return Grid(tuple(schedule.time_at(wanted)), (*levels, 1.0))


def observed_grid(schedule: NoiseSchedule, n: int, tau: float) -> Grid:
    """The :func:`logsnr_grid` of edits whose source is an observation with standard deviation tau.

    Its noisiest level has log-SNR -2 ln(tau) - 3. There the noised latent makes up 4.7 % of the precision that it and
    the source have together (:class:`~lcg_lightning.diffusion.guidance.Source`). An edit begins there at the noise that
    reproduces its source, without what noisier levels would have added: with a flat prior and a constant gradient, it
    moves by 1 - sqrt(0.047) = 0.78 of what it would from pure noise. A higher scale makes up for that at no cost.
    """
    equal = -2 * math.log(tau)
    return logsnr_grid(schedule, n, max(LOGSNR[0], equal - 3), max(LOGSNR[1], equal + 2.5))


def check_steps(n: int, low: int = 2, high: int | None = None) -> None:
    """Raises a UserError unless a number of steps is within low .. high; :func:`logsnr_grid` needs at least 2."""
    if n < low or (high is not None and n > high):
        raise UserError(f"sampling grid: {n} steps; give {low} {f'to {high}' if high else 'or more'}")

"""Runge-Kutta-Chebyshev method of order 2, for flows along the gradient of an energy.

The Jacobian of such a flow is symmetric. With s evaluations, a step is stable up to about 0.65 s^2 over the spectral
radius; Euler's is up to 2 over it (Sommeijer, Shampine and Verwer, RKC: an explicit solver for parabolic PDEs, J.
Comput. Appl. Math. 88, 1998). Every sample has its own steps and stages.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from lcg_lightning.diffusion.ode import MOST_STEPS, error_ratio, resized
from lcg_lightning.errors import Diverged

Field = Callable[[Tensor, Tensor], Tensor]
"""(rows (N,) int64, y (N, D)) -> dy/ds (N, D), where ``rows`` are the samples' places in the batch."""
MOST_STAGES = 40
"""The largest number of evaluations in a step."""
FINEST = 0.1
"""A step of at most this share of tolerance times time is taken whatever its error. Where the field jumps, as that of a
LeakyReLU network does, and points towards the jump from both sides, a solution slides along the jump. A step's error
falls only as the step there, so its control would take thousands of them. A solution leaves a jump by about its height
times this step."""
DAMPING, SAFETY, GROW, TINY = 2 / 13, 0.8, 2.0, 1e-12
"""Steps grow by ``GROW`` at most: a step that ends far beyond the end of a slope has an error estimate of 0."""


def rkc2(field: Field, y: Tensor, time: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Solves dy/ds = field(rows, y) for s from 0 to ``time``.

    Before every step, an evaluation beside y makes one iteration of the power method for the Jacobian's spectral
    radius; its direction goes on from step to step. A call of the field holds only samples that need it: those that are
    not finished, at each stage those whose step has as many. A sample's result depends on the rest of its batch only as
    far as the field's rounding does.

    Args:
        field: the right-hand side; its rows must not depend on each other.
        y: values at 0 (B, D).
        time: where to stop, above 0.
        tolerance: of a step's error, absolute and relative, as root mean square over a sample's dimensions; steps below
            :data:`FINEST` are not held to it.

    Returns:
        Values at ``time`` (B, D), NaN for a sample whose field is not finite; and the number of evaluations (B,)
        float64 that each sample needed.

    Raises:
        Diverged: a sample needs more than :data:`~lcg_lightning.diffusion.ode.MOST_STEPS` steps.
    """
    table, finest = _table().to(y.device), FINEST * tolerance * time
    end, rows = torch.empty_like(y), torch.arange(len(y), device=y.device)
    f = field(rows, y)
    left = torch.full((len(y),), float(time), dtype=torch.float64, device=y.device)
    h, steep = left.clone(), f
    evaluations = torch.full_like(left, 2.0)
    for step_number in range(MOST_STEPS):
        steep = torch.where(_rms(steep)[:, None] > 0, steep, f)
        size = 0.01 * _rms(1 + y.abs())
        steep = field(rows, y + (size / _rms(steep).clamp(min=TINY))[:, None].to(y) * steep) - f
        radius = (1.2 * _rms(steep) / size).nan_to_num(nan=0.0, posinf=0.0) + TINY
        if step_number == 0:
            h = torch.minimum(h, 1 / radius)
            ahead = field(rows, y + h[:, None].to(y) * f)  # where the Jacobian beside y may say nothing
            bend = h * error_ratio(ahead - f, y, y, tolerance)
            h = torch.fmin(h, 0.1 * h / bend.clamp(min=TINY).sqrt())
        h = torch.minimum(torch.minimum(h, left), 0.65 * (MOST_STAGES**2 - 1) / radius)
        stages = (1 + 1.54 * h * radius).sqrt().ceil().nan_to_num(nan=2).clamp(2, MOST_STAGES).long()
        order = stages.argsort(descending=True)  # who needs a stage stands before who does not
        rows, y, f, steep, left, h, stages = (x[order] for x in (rows, y, f, steep, left, h, stages))
        step = h[:, None].to(y)
        before, now = y, y + table[stages, 1, 2, None].to(y) * step * f
        for j, n in enumerate(stages.bincount().flip(0).cumsum(0).flip(0).tolist()):  # n samples have j stages or more
            if j < 2:
                continue
            slope = field(rows[:n], now[:n])
            mu, nu, new, old = (c[:, None].to(y) for c in table[stages[:n], j].unbind(1))
            stage = (1 - mu - nu) * y[:n] + mu * now[:n] + nu * before[:n] + step[:n] * (new * slope + old * f[:n])
            before, now = now, torch.cat([stage, now[n:]])
        f1 = field(rows, now)
        evaluations[rows] += 1 + stages
        error = 0.8 * (y - now) + 0.4 * step * (f + f1)
        ratio = error_ratio(error, y, now, tolerance)
        ratio = torch.where((h <= finest) & ratio.isfinite(), ratio.clamp(max=1.0), ratio)
        accepted = ratio <= 1.0
        left = torch.where(accepted, (left - h).masked_fill(h >= left, 0.0), left)
        y, f = torch.where(accepted[:, None], now, y), torch.where(accepted[:, None], f1, f)
        h = resized(h, ratio, 3, SAFETY, GROW)
        h = torch.where(ratio.isfinite(), h.clamp(min=finest), h)
        broken = ~ratio.isfinite() & (h < 1e-12 * time)
        y = y.masked_fill(broken[:, None], torch.nan)
        going = ~broken & (left > 0)
        end[rows] = y
        rows, y, f, steep, left, h = (x[going] for x in (rows, y, f, steep, left, h))
        if not len(rows):
            return end, evaluations
    raise Diverged(
        f"rkc2: {len(rows)} of {len(end)} samples need more than {MOST_STEPS} steps; the energy is too steep: "
        "lower the scale, or raise the tolerance"
    )


@cache
def _table() -> Tensor:
    """The coefficients mu, nu, mu~ and gamma~ of stage j of s, at [s, j]; equations 2.1 to 2.3 of the paper."""
    table = torch.zeros(MOST_STAGES + 1, MOST_STAGES + 1, 4, dtype=torch.float64)
    for s in range(2, MOST_STAGES + 1):
        w0 = 1 + DAMPING / s**2
        t, d, dd = [1.0, w0], [0.0, 1.0], [0.0, 0.0]  # Chebyshev polynomials and their derivatives at w0
        for j in range(2, s + 1):
            t.append(2 * w0 * t[-1] - t[-2])
            d.append(2 * t[j - 1] + 2 * w0 * d[-1] - d[-2])
            dd.append(4 * d[j - 1] + 2 * w0 * dd[-1] - dd[-2])
        w1 = d[s] / dd[s]
        b = [dd[2] / d[2] ** 2, 1 / w0, *(dd[j] / d[j] ** 2 for j in range(2, s + 1))]
        table[s, 1, 2] = b[1] * w1
        for j in range(2, s + 1):
            new = 2 * b[j] * w1 / b[j - 1]
            old = -(1 - b[j - 1] * t[j - 1]) * new
            table[s, j] = torch.tensor([2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], new, old])
    return table


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1).sqrt().double()

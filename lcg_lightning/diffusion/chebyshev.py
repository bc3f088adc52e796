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

MOST_STAGES = 40
"""The largest number of evaluations in a step."""
DAMPING, SAFETY, GROW, TINY = 2 / 13, 0.8, 5.0, 1e-12


def rkc2(field: Callable[[Tensor], Tensor], y: Tensor, time: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Solves dy/ds = field(y) for s from 0 to ``time``.

    Before every step, an evaluation beside y makes one iteration of the power method for the Jacobian's spectral
    radius; its direction goes on from step to step. A sample's result depends on the rest of its batch only as far as
    the field's rounding does. Finished samples wait for the others.

    Args:
        field: the right-hand side; its rows must not depend on each other.
        y: values at 0 (B, D).
        time: where to stop, above 0.
        tolerance: of a step's error, absolute and relative, as root mean square over a sample's dimensions.

    Returns:
        Values at ``time`` (B, D), NaN for a sample whose field is not finite; and the number of evaluations (B,)
        float64 that each sample needed.

    Raises:
        Diverged: a sample needs more than :data:`~lcg_lightning.diffusion.ode.MOST_STEPS` steps.
    """
    table = _table().to(y.device)
    f = field(y)
    left = torch.full((len(y),), float(time), dtype=torch.float64, device=y.device)
    h, steep = left.clone(), f
    evaluations = torch.ones_like(left)
    done = torch.zeros_like(left, dtype=torch.bool)
    for step_number in range(MOST_STEPS):
        steep = torch.where(_rms(steep)[:, None] > 0, steep, f)
        size = 0.01 * _rms(1 + y.abs())
        steep = field(y + (size / _rms(steep).clamp(min=TINY))[:, None].to(y) * steep) - f
        radius = (1.2 * _rms(steep) / size).nan_to_num(nan=0.0, posinf=0.0) + TINY
        if step_number == 0:
            h = torch.minimum(h, 1 / radius)
        h = torch.minimum(torch.minimum(h, left), 0.65 * (MOST_STAGES**2 - 1) / radius)
        stages = (1 + 1.54 * h * radius).sqrt().ceil().nan_to_num(nan=2).clamp(2, MOST_STAGES).long()
        stages = stages.masked_fill(done, 2)
        step = h[:, None].to(y)
        before, now = y, y + table[stages, 1, 2, None].to(y) * step * f
        for j in range(2, int(stages.max()) + 1):
            active = (stages >= j)[:, None]
            slope = field(now)
            mu, nu, new, old = (c[:, None].to(y) for c in table[stages, j].unbind(1))
            stage = (1 - mu - nu) * y + mu * now + nu * before + step * (new * slope + old * f)
            before, now = torch.where(active, now, before), torch.where(active, stage, now)
        f1 = field(now)
        evaluations += (1 + stages) * ~done
        error = 0.8 * (y - now) + 0.4 * step * (f + f1)
        ratio = error_ratio(error, y, now, tolerance)
        accepted = (ratio <= 1.0) & ~done
        left = torch.where(accepted, (left - h).masked_fill(h >= left, 0.0), left)
        y, f = torch.where(accepted[:, None], now, y), torch.where(accepted[:, None], f1, f)
        h = resized(h, ratio, 3, SAFETY, GROW)
        broken = ~done & ~ratio.isfinite() & (h < 1e-12 * time)
        y = y.masked_fill(broken[:, None], torch.nan)
        done = done | broken | (left == 0)
        if done.all():
            return y, evaluations
    raise Diverged(
        f"rkc2: {int((~done).sum())} of {len(y)} samples need more than {MOST_STEPS} steps; the energy is too steep: "
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

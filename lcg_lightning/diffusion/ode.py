"""Dormand and Prince's Runge-Kutta method of order 5, with a step size of its own for every sample.

Libraries choose one step size for a whole batch, from the norm of the batch's error, so a sample's result would depend
on its neighbours. Tableau and step control are those of Hairer, Norsett and Wanner, Solving Ordinary Differential
Equations I, sections II.4 and II.5.
"""

from collections.abc import Callable
from itertools import starmap
from operator import mul

import torch
from torch import Tensor

from lcg_lightning.errors import Diverged

Field = Callable[[Tensor, Tensor], Tensor]
"""(t (B,) float64, y (B, D)) -> dy/dt (B, D)."""

MOST_STEPS = 2000
"""Steps after which a solution is given up."""
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_ERROR = tuple(a - b for a, b in zip((*_STAGES[-1], 0.0), _FOURTH, strict=True))


def dopri5(field: Field, y: Tensor, start: float, end: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Solves dy/dt = field(t, y) from ``start`` to ``end``.

    A sample's steps depend on that sample alone, so its result depends on the rest of its batch only as far as the
    field's rounding does. Finished samples wait for the others.

    Args:
        field: the right-hand side; its rows must not depend on each other.
        y: values at ``start`` (B, D).
        start: where to begin.
        end: where to stop, before or after ``start``.
        tolerance: of a step's error, absolute and relative, as root mean square over a sample's dimensions.

    Returns:
        Values at ``end`` (B, D), NaN for a sample whose field is not finite; and the number of evaluations (B,)
        float64 that each sample needed.

    Raises:
        Diverged: a sample needs more than :data:`MOST_STEPS` steps.
    """
    sign = 1.0 if end > start else -1.0
    t = torch.full((len(y),), float(start), dtype=torch.float64, device=y.device)
    f = field(t, y)
    h = _first_step(field, t, y, f, sign, tolerance).clamp(max=abs(end - start))
    evaluations = torch.full_like(t, 2.0)
    done = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        left = (end - t).abs()
        last = h >= left
        h = torch.minimum(h, left)
        step = (sign * h).to(y)[:, None]
        slopes, y1 = [f], y
        for node, weights in zip(_NODES, _STAGES, strict=True):
            y1 = y + step * sum(starmap(mul, zip(slopes, weights, strict=True)))
            slopes.append(field(t + node * sign * h, y1))
        evaluations += 6.0 * ~done
        error = step * sum(starmap(mul, zip(slopes, _ERROR, strict=True)))
        ratio = error_ratio(error, y, y1, tolerance)
        accepted = (ratio <= 1.0) & ~done
        t = torch.where(accepted, torch.where(last, torch.full_like(t, end), t + sign * h), t)
        y, f = torch.where(accepted[:, None], y1, y), torch.where(accepted[:, None], slopes[-1], f)
        h = resized(h, ratio, 5, SAFETY, GROW)
        broken = ~done & ~ratio.isfinite() & (h < 1e-12 * abs(end - start))
        y = y.masked_fill(broken[:, None], torch.nan)
        done = done | broken | (t == end)
        if done.all():
            return y, evaluations
    raise Diverged(
        f"dopri5: {int((~done).sum())} of {len(y)} samples need more than {MOST_STEPS} steps; the field is too steep: "
        "lower the scale, or raise the tolerance"
    )


def error_ratio(error: Tensor, before: Tensor, after: Tensor, tolerance: float) -> Tensor:
    """Sizes (B,) float64 of a step's errors (B, D), as shares of the tolerance; a step is accepted up to 1.

    The tolerance is absolute and relative to the larger of the values (B, D) before and after the step.
    """
    return _rms(error / (tolerance + tolerance * torch.maximum(before.abs(), after.abs()))).double()


def resized(h: Tensor, ratio: Tensor, order: int, safety: float, grow: float) -> Tensor:
    """Sizes (B,) of the next steps, from those of the last ones (B,) and their :func:`error_ratio`.

    Args:
        h: sizes of the last steps.
        ratio: their errors; a step whose error is not finite shrinks the most.
        order: a step's error is proportional to h^order.
        safety: factor of the size that would just be accepted.
        grow: largest factor of an accepted step's size; a refused one never grows.
    """
    factor = (safety * ratio.clamp(min=1e-10) ** (-1 / order)).clamp(SHRINK, grow).nan_to_num(nan=SHRINK)
    return h * torch.where(ratio <= 1.0, factor, factor.clamp(max=1.0))


def _first_step(field: Field, t: Tensor, y: Tensor, f: Tensor, sign: float, tolerance: float) -> Tensor:
    """Hairer's guess (B,) of the first step, from the sizes of y and its first two derivatives."""
    scale = tolerance + tolerance * y.abs()
    size, slope = _rms(y / scale), _rms(f / scale)
    tiny = (size < 1e-5) | (slope < 1e-5)
    h = torch.where(tiny, torch.full_like(size, 1e-6), 0.01 * size / slope)
    bend = _rms((field(t + sign * h, y + sign * h[:, None] * f) - f) / scale) / h
    steepest = torch.maximum(slope, bend)
    longer = torch.where(steepest <= 1e-15, (1e-3 * h).clamp(min=1e-6), (0.01 / steepest) ** 0.2)
    return torch.minimum(100 * h, longer).nan_to_num(nan=1e-6).double()


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1).sqrt()

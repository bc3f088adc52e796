"""Samplers: from noise to latents over a grid. Each is a loop that follows the algorithm in its paper.

Every sampler is a function ``(eps, noise, grid) -> latents``, a :data:`Sampler`:

- ``eps(z, i)`` predicts the noise in z (B, D) at entry i of the grid's times;
- ``noise(draw)`` is standard normal noise (B, D). Draw 0 is the start, at the grid's first level. Draws 1, 2, ... are
  fresh noise for samplers that need it. The same draw always gives the same noise;
- ``grid`` holds the times and the noise levels. Step i goes from level a = alpha_bar[i] to the cleaner level
  b = alpha_bar[i + 1].

The returned latents are at the grid's last level, in the dtype of the noise. Coefficients are Python floats, so nothing
waits for the device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from torch import Tensor

from lcg_lightning.diffusion.grids import Grid
from lcg_lightning.diffusion.schedule import EpsModel, eps_to_x0
from lcg_lightning.errors import Diverged, UserError

Noise = Callable[[int], Tensor]
"""Draw number -> standard normal noise (B, D)."""

Sampler = Callable[[EpsModel, Noise, Grid], Any]
"""(eps, noise, grid) -> latents (B, D). The result is Any here because jsonargparse compares it with annotations."""


def starting_at(z: Tensor) -> Noise:
    """Noise that starts a deterministic sampler at given latents z (B, D)."""
    return lambda draw: z


def ddim(eps: EpsModel, noise: Noise, grid: Grid, *, eta: float = 0.0) -> Tensor:
    """DDIM (Song et al., arXiv 2010.02502, eq. 12 and 16).

    Args:
        eps: noise prediction.
        noise: draw 0 is the start; step i takes draw i + 1 when eta is above 0.
        grid: times and levels.
        eta: 0 is deterministic, 1 ancestral.
    """
    z = noise(0)
    for i, (a, b) in enumerate(pairwise(grid.alpha_bar)):
        sigma = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        keep, push = _ddim_coefficients(a, b, sigma)
        z = keep * z + push * eps(z, i)
        if sigma > 0:
            z = z + sigma * noise(i + 1)
    return z


def _ddim_coefficients(a: float, b: float, sigma: float = 0.0) -> tuple[float, float]:
    """The step's factors of z and of the predicted noise."""
    keep = math.sqrt(b / a)
    return keep, math.sqrt(1 - b - sigma**2) - keep * math.sqrt(1 - a)


def ddpm(eps: EpsModel, noise: Noise, grid: Grid) -> Tensor:
    """Ancestral sampling (Ho et al., arXiv 2006.11239, algorithm 2) with the variance of q(z_b | z_a, z_0).

    The full grid gives the algorithm of the paper; a coarser grid is treated as a schedule in its own right. The
    result equals DDIM at eta = 1 (Song et al., section 4.1).
    """
    return ddim(eps, noise, grid, eta=1.0)


def dpmpp_2m(eps: EpsModel, noise: Noise, grid: Grid) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2).

    Two kinds of step are first-order: the first, which has no history, and a step to clean, whose log-SNR is infinite.
    """
    z = noise(0)
    h_before, x0_before = math.inf, z
    for i, (a, b) in enumerate(pairwise(grid.alpha_bar)):
        x0 = eps_to_x0(z, eps(z, i), a)
        h = _half_log_snr(b) - _half_log_snr(a)
        keep = math.sqrt((1 - b) / (1 - a))
        push = math.sqrt(b) - keep * math.sqrt(a)
        ahead = 0.0 if h == math.inf else h / (2 * h_before)
        z = keep * z + push * ((1 + ahead) * x0 - ahead * x0_before)
        h_before, x0_before = h, x0
    return z


def dpmpp_2m_secant(eps: EpsModel, noise: Noise, grid: Grid) -> Tensor:
    """DPM-Solver++(2M) that treats stiff directions exactly, so that strong guidance needs fewer steps.

    With x = z / sqrt(a) and half the log-SNR as time, dx/dt = x_0(x, t) - x. Guidance at scale s pulls x_0 against x
    about s - 1 times as fast as x moves, and the extrapolation of DPM-Solver++ then overshoots from step to step. Here
    the last two predictions, whose difference is d, give a Jacobian of x_0 for each sample: d d^T / (d . dx), the
    symmetric rank-one secant (Broyden, 1967, doi 10.1090/S0025-5718-1967-0224273-2). Where its eigenvalue is below
    -1/2, x_0 follows it through the step, in the manner of exponential Rosenbrock methods (Hochbruck and Ostermann,
    2010, doi 10.1017/S0962492910000048); elsewhere the step is that of :func:`dpmpp_2m`. Both are of second order.
    """
    z = noise(0)
    h_before, x_before, x0_before = math.inf, z, z
    for i, (a, b) in enumerate(pairwise(grid.alpha_bar)):
        x, x0 = z / math.sqrt(a), eps_to_x0(z, eps(z, i), a)
        h = _half_log_snr(b) - _half_log_snr(a)
        keep = math.sqrt((1 - b) / (1 - a))
        push = math.sqrt(b) - keep * math.sqrt(a)
        z = keep * z + push * x0
        if i > 0 and h < math.inf:
            change = x0 - x0_before
            z = z + push * _ahead(change, x - x_before, x0 - x, h, h_before) * change
        h_before, x_before, x0_before = h, x, x0
    return z


def _ahead(change: Tensor, moved: Tensor, slope: Tensor, h: float, h_before: float) -> Tensor:
    """Factors (B, 1) of the last change of x_0 (B, D): the mean over the step h, with its weights, of what is to come.

    ``moved`` is the last change of x, ``slope`` dx/dt. What is to come is c(t) times the change, and
    c' = q - (1 - e) c from c = 0, with the secant's eigenvalue e and q = (change . slope) / (change . moved).
    """
    along, square, forward = ((change * v).sum(1, keepdim=True) for v in (moved, change, slope))
    e = square / along
    fading = (math.exp(-h) - ((e - 1) * h).exp()) / (-math.expm1(-h) * e)
    return (forward / (along - square) * (1 + fading)).where(e < -0.5, h / (2 * h_before))


def _half_log_snr(alpha_bar: float) -> float:
    return math.inf if alpha_bar == 1 else (math.log(alpha_bar) - math.log1p(-alpha_bar)) / 2


def heun(eps: EpsModel, noise: Noise, grid: Grid) -> Tensor:
    """Heun's second-order method on the probability-flow ODE in the angle phi, cos(phi) = sqrt(a).

    In phi, dz/dphi = v = cos(phi) eps - sin(phi) x0 (Salimans and Ho, arXiv 2202.00512). This is bounded at both
    ends and zero for standard normal data, so errors stay small on standardized latents. The usual variable,
    z / sqrt(a) over sqrt((1 - a) / a) (Karras et al., arXiv 2206.00364, algorithm 1), blows up with few steps.
    The grid has no time for its last level, so the last step is an Euler step, which equals DDIM's.
    """
    z, last = noise(0), len(grid.t) - 1
    for i, (a, b) in enumerate(pairwise(grid.alpha_bar[:-1])):
        h = math.acos(math.sqrt(b)) - math.acos(math.sqrt(a))
        v = _velocity(z, eps(z, i), a)
        ahead = z + h * v
        z = z + h / 2 * (v + _velocity(ahead, eps(ahead, i + 1), b))
    keep, push = _ddim_coefficients(*grid.alpha_bar[-2:])
    return keep * z + push * eps(z, last)


def _velocity(z: Tensor, eps: Tensor, a: float) -> Tensor:
    return (eps - math.sqrt(1 - a) * z) / math.sqrt(a)


@dataclass(frozen=True)
class PredictorCorrector:
    """DDIM with Langevin corrections at every level except the last (arXiv 2011.13456, algorithm 1).

    A Langevin step at level a is z <- z + s score + sqrt(2 s) xi with s = step_size (1 - a). Its size is fixed relative
    to the noise level rather than chosen from gradient norms (their algorithm 5), so a sample does not depend on its
    batch. The discretization widens the variance by a factor of at most 1 / (1 - step_size / 2).

    Raises:
        UserError: corrections is below 1, or step_size is not within (0, 2).
    """

    corrections: int = 1
    """Langevin steps per level; each is one evaluation."""
    step_size: float = 0.1
    """s in units of the noise variance 1 - a."""

    def __post_init__(self) -> None:
        if self.corrections < 1:
            raise UserError(f"predictor-corrector: corrections is {self.corrections}; give 1 or more, or use ddim")
        if not 0 < self.step_size < 2:
            raise UserError(f"predictor-corrector: step_size is {self.step_size}; it must be above 0 and below 2")

    def __call__(self, eps: EpsModel, noise: Noise, grid: Grid) -> Tensor:
        """Latents (B, D); correction k after step i takes draw 1 + i corrections + k."""
        z = noise(0)
        for i, (a, b) in enumerate(pairwise(grid.alpha_bar)):
            keep, push = _ddim_coefficients(a, b)
            z = keep * z + push * eps(z, i)
            if i + 1 < len(grid.t):
                s = self.step_size * (1 - b)
                for k in range(self.corrections):
                    draw = 1 + i * self.corrections + k
                    z = z - s / math.sqrt(1 - b) * eps(z, i + 1) + math.sqrt(2 * s) * noise(draw)
        return z


def invert(eps: EpsModel, z: Tensor, grid: Grid, *, fixed_point: int = 0) -> Tensor:
    """The latents at the grid's first level from which deterministic :func:`ddim` returns to z at its last.

    A DDIM step solved for its start: z_a = (z_b - push eps(z_a, i)) / keep. The explicit form (Song et al.,
    arXiv 2010.02502, section 5.4) takes eps at z_b. Each fixed-point iteration (Pan et al., arXiv 2309.04907)
    takes it at the last estimate of z_a, and they converge to an exact inverse.

    Args:
        eps: noise prediction.
        z: latents (B, D) at the grid's last level.
        grid: times and levels.
        fixed_point: iterations per step; evaluations are 1 + fixed_point per step.
    """
    for i in reversed(range(len(grid.t))):
        keep, push = _ddim_coefficients(grid.alpha_bar[i], grid.alpha_bar[i + 1])
        start = z
        for _ in range(1 + fixed_point):
            start = (z - push * eps(start, i)) / keep
        z = start
    return z


SamplerName = Literal["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_secant", "heun"]

_NAMED: dict[SamplerName, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_secant": dpmpp_2m_secant,
    "heun": heun,
}


def find_sampler(sampler: SamplerName | Sampler) -> Sampler:
    """The sampler of a short name; any other is returned as it is.

    Raises:
        UserError: no sampler has that name.
    """
    if not isinstance(sampler, str):
        return sampler
    if sampler not in _NAMED:
        raise UserError(f"unknown sampler {sampler!r}; use {', '.join(get_args(SamplerName))} or an import path")
    return _NAMED[sampler]


def sampler_text(sampler: SamplerName | Sampler) -> str:
    """How records name a sampler: its short name, import path, or class with its attributes."""
    if isinstance(sampler, str):
        return sampler
    named = getattr(sampler, "__qualname__", None)
    if named is not None:
        return f"{sampler.__module__}.{named}"
    options = ", ".join(f"{key}={value!r}" for key, value in vars(sampler).items())
    return f"{type(sampler).__module__}.{type(sampler).__qualname__}({options})"


def run(sample: Callable[[EpsModel], Tensor], eps: EpsModel) -> tuple[Tensor, int]:
    """Runs a sampler or an inversion, counts its evaluations, and stops at latents that are not finite.

    Only the result is looked at, so the device is waited for once. If it is not finite, the run is repeated with every
    step looked at, to tell at which one it went wrong.

    Args:
        sample: takes a noise prediction; the same one must give the same latents.
        eps: noise prediction.

    Returns:
        the latents (B, D), and how often eps was evaluated.

    Raises:
        Diverged: NaN or infinity among the latents, with the step at which it appeared.
    """
    evaluations = 0

    def counted(z: Tensor, i: int) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return eps(z, i)

    def checked(z: Tensor, i: int) -> Tensor:
        out = eps(z, i)
        _refuse_broken(z + out, f"at step {i + 1}")
        return out

    latents = sample(counted)
    if not latents.isfinite().all():
        sample(checked)
        _refuse_broken(latents, "after the last step")
    return latents, evaluations


def _refuse_broken(values: Tensor, where: str) -> None:
    broken = int((~values.isfinite()).any(1).sum())
    if broken:
        raise Diverged(
            f"sampling: {broken} of {len(values)} samples are not finite {where}; lower the guidance scale, or check "
            "the checkpoints"
        )

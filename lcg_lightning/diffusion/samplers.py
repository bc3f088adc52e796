"""Samplers: from noise to latents over a grid, each a loop that reads as its paper's algorithm.

All take a noise prediction ``eps(z, i)``, the batch's shared time being entry i of the grid, and latents z
(B, D) at the grid's first level; all return latents at its last level, in z's dtype. Step i goes from level
a = alpha_bar[i] to the cleaner b = alpha_bar[i + 1]. Coefficients are Python floats, so nothing waits for
the device.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from lcg_lightning.diffusion.grids import Grid
from lcg_lightning.diffusion.schedule import EpsModel, eps_to_x0
from lcg_lightning.errors import UserError

Noise = Callable[[int], Tensor]
"""Draw number -> standard normal noise (B, D); sampler step i uses draw i, correctors those from n on."""


class Corrector(Protocol):
    """Moves latents z (B, D) at level i of the grid towards the distribution of that level."""

    def __call__(self, eps: EpsModel, z: Tensor, grid: Grid, i: int, noise: Noise) -> Tensor:
        """Returns the moved latents (B, D)."""


def ddim(
    eps: EpsModel,
    z: Tensor,
    grid: Grid,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    corrector: Corrector | None = None,
) -> Tensor:
    """DDIM (Song et al., arXiv 2010.02502, eq. 12 and 16).

    Args:
        eps: noise prediction.
        z: latents at the grid's first level (B, D).
        grid: times and levels.
        eta: 0 is deterministic, 1 ancestral.
        noise: fresh noise; needed when eta > 0 or a corrector is given.
        corrector: runs after each step, at the level that the step has reached, but not at the last.

    Raises:
        UserError: noise is needed and not given.
    """
    if noise is None and (eta > 0 or corrector is not None):
        raise UserError("ddim: eta above 0 or a corrector needs fresh noise; give noise")
    for i, (a, b) in enumerate(pairwise(grid.alpha_bar)):
        sigma = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        keep, push = _ddim_coefficients(a, b, sigma)
        z = keep * z + push * eps(z, i)
        if noise is None:
            continue
        if sigma > 0:
            z = z + sigma * noise(i)
        if corrector is not None and i + 1 < len(grid.t):
            z = corrector(eps, z, grid, i + 1, noise)
    return z


def _ddim_coefficients(a: float, b: float, sigma: float = 0.0) -> tuple[float, float]:
    """The step's factors of z and of the predicted noise."""
    keep = math.sqrt(b / a)
    return keep, math.sqrt(1 - b - sigma**2) - keep * math.sqrt(1 - a)


def ddpm(eps: EpsModel, z: Tensor, grid: Grid, *, noise: Noise, corrector: Corrector | None = None) -> Tensor:
    """Ancestral sampling (Ho et al., arXiv 2006.11239, algorithm 2) with the variance of q(z_b | z_a, z_0).

    On the full grid it is theirs; on a coarser one it is that of the grid as a schedule of its own. It equals
    DDIM at eta = 1 (Song et al., section 4.1).
    """
    return ddim(eps, z, grid, eta=1.0, noise=noise, corrector=corrector)


def dpmpp_2m(eps: EpsModel, z: Tensor, grid: Grid) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2).

    The first step, which has no past, and a step to clean, whose log-SNR is infinite, are of first order.
    """
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


def _half_log_snr(alpha_bar: float) -> float:
    return math.inf if alpha_bar == 1 else (math.log(alpha_bar) - math.log1p(-alpha_bar)) / 2


def heun(eps: EpsModel, z: Tensor, grid: Grid) -> Tensor:
    """Heun's second-order method on the probability-flow ODE in the angle phi, cos(phi) = sqrt(a).

    There dz/dphi = v = cos(phi) eps - sin(phi) x0 (Salimans and Ho, arXiv 2202.00512). It is bounded at both
    ends and zero for standard normal data, so errors stay small on standardized latents, where the usual choice,
    z / sqrt(a) over sqrt((1 - a) / a) (Karras et al., arXiv 2206.00364, algorithm 1), blows up in few steps.
    The grid names no time for its last level, so the last step is an Euler step, that of DDIM.
    """
    last = len(grid.t) - 1
    for i, (a, b) in enumerate(pairwise(grid.alpha_bar[:-1])):
        h = math.acos(math.sqrt(b)) - math.acos(math.sqrt(a))
        v = _velocity(z, eps(z, i), a)
        ahead = z + h * v
        z = z + h / 2 * (v + _velocity(ahead, eps(ahead, i + 1), b))
    keep, push = _ddim_coefficients(*grid.alpha_bar[-2:])
    return keep * z + push * eps(z, last)


def _velocity(z: Tensor, eps: Tensor, a: float) -> Tensor:
    return (eps - math.sqrt(1 - a) * z) / math.sqrt(a)


def langevin(
    eps: EpsModel, z: Tensor, grid: Grid, i: int, noise: Noise, *, step: float = 0.1, num_steps: int = 1
) -> Tensor:
    """Unadjusted Langevin steps at level i, a :class:`Corrector` once its options are bound by ``partial``.

    z <- z + s score + sqrt(2 s) xi with s = step (1 - a): fixed relative to the noise level, rather than
    chosen from gradient norms (Song et al., arXiv 2011.13456, algorithm 5), so that a sample does not depend
    on its batch.
    The discretisation widens the variance that it converges to, by a factor of at most 1 / (1 - step / 2).

    Args:
        eps: noise prediction.
        z: latents (B, D) at level i.
        grid: times and levels.
        i: level at which to run.
        noise: fresh noise; step k of level i uses draw n + i * num_steps + k.
        step: step size s in units of the noise variance 1 - a.
        num_steps: evaluations spent.
    """
    s = step * (1 - grid.alpha_bar[i])
    pull = -s / math.sqrt(1 - grid.alpha_bar[i])
    for k in range(num_steps):
        draw = len(grid.t) + i * num_steps + k
        z = z + pull * eps(z, i) + math.sqrt(2 * s) * noise(draw)
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


SAMPLERS: dict[str, Callable[..., Tensor]] = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}
"""By name; ``ddpm`` also needs ``noise``."""


def evaluations(sampler: str, grid: Grid) -> int:
    """Model evaluations per sample of a named sampler without a corrector."""
    n = len(grid.t)
    return 2 * n - 1 if sampler == "heun" else n

"""Variance-preserving diffusion: schedules, noising, conversions, sampling grids, the variational bound.

q(z_t | z_0) = N(sqrt(a) z_0, (1 - a) I) with a = alpha_bar_t (Ho et al., arXiv 2006.11239, eq. 4).
Index t runs over 0 .. T-1, from the cleanest noised level to the noisiest; clean latents have a = 1
and no index.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.errors import UserError

NoisePredictor = Callable[[Tensor, Tensor], Tensor]
"""A network's view: (z (B, D), t (B,) int64) -> predicted noise (B, D)."""

EpsModel = Callable[[Tensor, int], Tensor]
"""A sampler's view: (z (B, D), i) -> predicted noise (B, D), where i indexes the times of a :class:`Grid`."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels of the forward process."""

    alpha_bar: Tensor
    """(T,) float64, strictly decreasing within (0, 1)."""

    @property
    def num_steps(self) -> int:
        """Number T of noise levels."""
        return len(self.alpha_bar)


def make_schedule(name: Literal["linear", "cosine", "constant"], num_steps: int = 1000) -> NoiseSchedule:
    """A named schedule.

    Args:
        name: ``linear``: beta from 1e-4 to 0.02 (Ho et al., section 4). ``cosine``: Nichol and Dhariwal
            (arXiv 2102.09672, eq. 17) with beta at most 0.999. ``constant``: beta 0.008, that of DiffAE's
            latent prior.
        num_steps: number T of levels. The betas of ``linear`` and ``constant`` are stated for 1000 steps and
            scaled by 1000 / T, which keeps the total amount of noise.

    Raises:
        UserError: no such schedule, or fewer than one step.
    """
    if num_steps < 1:
        raise UserError(f"noise schedule: num_steps is {num_steps}; it must be 1 or more")
    if name == "linear":
        beta = torch.linspace(1e-4, 0.02, num_steps, dtype=torch.float64) * 1000 / num_steps
    elif name == "cosine":
        x = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        f = ((x + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        beta = 1 - f[1:] / f[:-1]
    elif name == "constant":
        beta = torch.full((num_steps,), 8.0 / num_steps, dtype=torch.float64)
    else:
        raise UserError(f"unknown noise schedule {name!r}; use linear, cosine or constant")
    return NoiseSchedule((1 - beta.clamp(max=0.999)).cumprod(0))


def _scales(alpha_bar: Tensor | float, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Signal and noise scales (sqrt(a), sqrt(1 - a)): floats, or columns that broadcast over ``like``."""
    if not isinstance(alpha_bar, Tensor):
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    column = alpha_bar.reshape(-1, *[1] * (like.ndim - 1))
    return column.sqrt().to(like), (1 - column).sqrt().to(like)


def q_sample(z0: Tensor, alpha_bar: Tensor | float, eps: Tensor) -> Tensor:
    """Noised latents sqrt(a) z_0 + sqrt(1 - a) eps.

    Args:
        z0: clean latents (B, ...).
        alpha_bar: one level, or one per sample (B,) (float64, so that 1 - a keeps its digits).
        eps: standard normal noise of z0's shape.
    """
    signal, noise = _scales(alpha_bar, z0)
    return signal * z0 + noise * eps


def eps_to_x0(z: Tensor, eps: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """The clean latents that a noise prediction implies (Tweedie's formula)."""
    signal, noise = _scales(alpha_bar, z)
    return (z - noise * eps) / signal


def x0_to_eps(z: Tensor, x0: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """The inverse of :func:`eps_to_x0`."""
    signal, noise = _scales(alpha_bar, z)
    return (z - signal * x0) / noise


def eps_to_score(eps: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """Gradient of log p(z_t) that a noise prediction stands for: -eps / sqrt(1 - a)."""
    return -eps / _scales(alpha_bar, eps)[1]


def score_to_eps(score: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """The inverse of :func:`eps_to_score`."""
    return -score * _scales(alpha_bar, score)[1]


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


class _Bound(NamedTuple):
    """The bound's term at time t is constant[t] + sum_d weight[t, d] (eps - eps_theta)_d^2, in nats."""

    constant: Tensor  # (T,)
    weight: Tensor  # (T, 1 or D)
    share: Tensor  # (T,) a density over times, near to that of the terms


def _bound(schedule: NoiseSchedule, signal_variance: Tensor | float, d: int) -> _Bound:
    a = schedule.alpha_bar.cpu()[:, None]  # (T, 1)
    before = torch.cat([torch.ones_like(a[:1]), a[:-1]])  # (T, 1) the level one step cleaner
    beta = 1 - a / before
    v = torch.as_tensor(signal_variance, dtype=a.dtype, device="cpu").reshape(-1)  # (1 or D,)
    forward = (1 - before) / (1 - a) * beta  # (T, 1) variance of q(z_{t-1} | z_t, z_0)
    gain = before.sqrt() * beta / (1 - a)  # (T, 1) derivative of its mean in z_0
    clean = v * (1 - a) / (a * v + 1 - a)  # (T, 1 or D) Var[x | z_t] for data of variance v
    reverse = forward + gain**2 * clean  # (T, 1 or D)
    ratio = forward[1:] / reverse[1:]
    kl = (ratio - 1 - ratio.log()).mean(1)
    decoder = (2 * math.pi * reverse[:1]).log().mean(1)
    weight = gain**2 * (1 - a) / a / (2 * reverse)
    ideal = (gain**2 * clean / reverse).mean(1)
    even = weight.mean(1)
    return _Bound(d / 2 * torch.cat([decoder, kl]), weight, (ideal / ideal.sum() + even / even.sum()) / 2)


def _prior_kl(z0: Tensor, schedule: NoiseSchedule) -> Tensor:
    """KL(q(z_T | z_0) || N(0, I)) (B,)."""
    a = schedule.alpha_bar[-1].item()
    return (a * z0.square() - a - math.log1p(-a)).sum(1) / 2


@torch.no_grad()
def elbo(
    model: NoisePredictor,
    z0: Tensor,
    schedule: NoiseSchedule,
    noise: Callable[[int], Tensor],
    signal_variance: Tensor | float = 1.0,
) -> Tensor:
    """The variational bound on log p(z_0), all T terms (Ho et al., eq. 5); costs T model evaluations.

    With x for the clean latents and z_0 .. z_{T-1} for the noised ones: - KL(q(z_{T-1} | x) || N(0, I))
    - sum_{t >= 1} KL(q(z_{t-1} | z_t, x) || p(z_{t-1} | z_t)) + log p(x | z_0). Latents are continuous, so
    the decoder p(x | z_0) is a Gaussian density like every other kernel, not discretised.

    The kernel p(z_{t-1} | z_t) has the mean of q(z_{t-1} | z_t, x) at the predicted x, and the variance that
    is exact for data of variance v: var q + (d mean / d x)^2 v (1 - a) / (a v + 1 - a). So v = 1 gives
    beta_t, the right choice for whitened latents, and v -> 0 the posterior variance, the other choice of
    Ho et al., section 3.2. On Gaussian data of independent dimensions with variances v, the expectation of
    the bound over the noise is exact but for the KL at the last level.

    Args:
        model: noise prediction network.
        z0: whitened latents (B, D).
        schedule: noise levels.
        noise: t -> standard normal noise (B, D) for the sample of q(z_t | z_0).
        signal_variance: v > 0, one or per dimension (D,).

    Returns:
        (B,) nats, in z0's dtype, for the density of the whitened latents.
    """
    bound = _bound(schedule, signal_variance, z0.shape[1])
    weight = bound.weight.to(z0)
    total = -_prior_kl(z0, schedule) - bound.constant.sum().item()
    for t, a in enumerate(schedule.alpha_bar.tolist()):
        eps = noise(t)
        predicted = model(q_sample(z0, a, eps), torch.full((len(z0),), t, device=z0.device))
        total -= (weight[t] * (eps - predicted).square()).sum(1)
    return total


@torch.no_grad()
def elbo_estimate(
    model: NoisePredictor,
    z0: Tensor,
    schedule: NoiseSchedule,
    noise: Tensor,
    uniform: Tensor,
    signal_variance: Tensor | float = 1.0,
) -> Tensor:
    """An unbiased estimate of :func:`elbo` from K model evaluations per sample, in one batch of B K rows.

    Times are drawn from a density that follows the size of the terms: half of it in proportion to the terms
    of an ideal model on data of variance v, half to those of a model whose error is the same at every t.
    They are stratified: sample b takes the quantiles (k + uniform[b]) / K, k = 0 .. K-1.

    Args:
        model: noise prediction network.
        z0: whitened latents (B, D).
        schedule: noise levels.
        noise: standard normal noise (B, K, D).
        uniform: (B,) within [0, 1).
        signal_variance: as in :func:`elbo`.

    Returns:
        (B,) nats.
    """
    b, k, d = noise.shape
    bound = _bound(schedule, signal_variance, d)
    edges = bound.share.cumsum(0)[:-1].to(z0.device)
    quantile = (torch.arange(k, device=z0.device) + uniform.double()[:, None]) / k  # (B, K)
    t = torch.bucketize(quantile, edges, right=True)  # (B, K)
    weight = (bound.weight / bound.share[:, None] / k).to(z0)[t]  # (B, K, 1 or D)
    alpha_bar = schedule.alpha_bar.to(z0.device)[t.flatten()]  # (B K,)
    z = q_sample(z0.repeat_interleave(k, 0), alpha_bar, noise.flatten(0, 1))
    error = noise - model(z, t.flatten()).view(b, k, d)
    return -_prior_kl(z0, schedule) - bound.constant.sum().item() - (weight * error.square()).sum((1, 2))


def bits_per_dim(nats: Tensor, d: int) -> Tensor:
    """Negative log-likelihood in bits per dimension of a log-likelihood (or bound) in nats."""
    return -nats / (d * math.log(2))

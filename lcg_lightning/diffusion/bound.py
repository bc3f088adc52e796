"""The variational bound on log p(z_0) of a diffusion model of latents."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lcg_lightning.diffusion.schedule import NoisePredictor, NoiseSchedule, q_sample


class _Bound(NamedTuple):
    """The bound's term at time t is constant[t] + sum_d weight[t, d] (eps - eps_theta)_d^2, in nats."""

    constant: Tensor  # (T,)
    weight: Tensor  # (T, 1 or D)
    share: Tensor  # (T,) a sampling density over times, close to that of the terms


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
def elbo_estimate(
    model: NoisePredictor,
    z0: Tensor,
    schedule: NoiseSchedule,
    noise: Tensor,
    uniform: Tensor,
    signal_variance: Tensor | float = 1.0,
) -> Tensor:
    """An unbiased estimate of the variational bound on log p(z_0) (Ho et al., arXiv 2006.11239, eq. 5).

    With x for the clean latents and z_0 .. z_{T-1} for the noised ones, the bound is - KL(q(z_{T-1} | x) || N(0, I))
    - sum_{t >= 1} KL(q(z_{t-1} | z_t, x) || p(z_{t-1} | z_t)) + log p(x | z_0). Latents are continuous, so the decoder
    p(x | z_0) is a Gaussian density like every other kernel and is not discretized.

    The kernel p(z_{t-1} | z_t) has the mean of q(z_{t-1} | z_t, x) at the predicted x. Its variance is exact for data
    of variance v: var q + (d mean / d x)^2 v (1 - a) / (a v + 1 - a). So v = 1 gives beta_t, the right choice for
    standardized latents, and v -> 0 gives the posterior variance, the other choice in Ho et al., section 3.2. On
    Gaussian data with independent dimensions of variances v, the expected bound is log p(z_0) except for the KL at the
    last level.

    K of the T terms are evaluated per sample, in one batch of B K rows. Their times are drawn from an equal mixture of
    two densities: one proportional to the terms of an ideal model on data of variance v, the other to those of a model
    whose error is the same at every t. Times are stratified: sample b takes the quantiles (k + uniform[b]) / K,
    k = 0 .. K-1.

    Args:
        model: noise prediction network.
        z0: standardized latents (B, D).
        schedule: noise levels.
        noise: standard normal noise (B, K, D).
        uniform: (B,) within [0, 1).
        signal_variance: v > 0, one or per dimension (D,).

    Returns:
        (B,) nats, in z0's dtype, for the density of the standardized latents.
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
    """Negative log-likelihood in bits per dimension, from a log-likelihood (or bound) in nats."""
    return -nats / (d * math.log(2))

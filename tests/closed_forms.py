"""Exact answers for a Gaussian prior, in float64: the oracle of the diffusion, sampler and guidance tests.

z_0 ~ N(mean, cov), z_t | z_0 ~ N(sqrt(a) z_0, (1 - a) I) with a = alpha_bar_t. Everything is linear algebra
on (d,) and (d, d) tensors and shares no code with the package.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """N(mean (d,), cov (d, d)) over clean latents, and all that follows at noise level ``a``."""

    mean: Tensor
    cov: Tensor

    @classmethod
    def random(cls, d: int = 16, seed: int = 0, low: float = 0.2, high: float = 2.0) -> "GaussianPrior":
        """A random mean and a dense covariance whose eigenvalues run evenly from low to high."""
        g = torch.Generator().manual_seed(seed)
        q, _ = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))
        cov = (q * torch.linspace(low, high, d, dtype=torch.float64)) @ q.T
        return cls(0.5 * torch.randn(d, generator=g, dtype=torch.float64), (cov + cov.T) / 2)

    @property
    def d(self) -> int:
        return len(self.mean)

    @property
    def eye(self) -> Tensor:
        return torch.eye(self.d, dtype=self.mean.dtype)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draws (n, d)."""
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(n, self.d, generator=g, dtype=self.mean.dtype)
        return self.mean + x @ torch.linalg.cholesky(self.cov).T

    # the noised marginal p(z_t)

    def noised(self, a: float) -> "GaussianPrior":
        """p(z_t) = N(sqrt(a) mean, a cov + (1 - a) I)."""
        return GaussianPrior(math.sqrt(a) * self.mean, a * self.cov + (1 - a) * self.eye)

    def log_prob(self, z: Tensor, a: float = 1.0) -> Tensor:
        """log p(z_t = z): (B, d) -> (B,)."""
        p = self.noised(a)
        return torch.distributions.MultivariateNormal(p.mean, p.cov).log_prob(z)

    def score(self, z: Tensor, a: float) -> Tensor:
        """Gradient of :meth:`log_prob`: (B, d) -> (B, d)."""
        p = self.noised(a)
        return -torch.linalg.solve(p.cov, (z - p.mean).T).T

    def eps(self, z: Tensor, a: float) -> Tensor:
        """E[eps | z_t = z] = -sqrt(1 - a) score: the optimal noise prediction (B, d)."""
        return -math.sqrt(1 - a) * self.score(z, a)

    def eps_model(self, alpha_bar: Sequence[float]) -> Callable[[Tensor, int], Tensor]:
        """The optimal EpsModel of a grid, given its levels."""
        return lambda z, i: self.eps(z, alpha_bar[i])

    # the denoising posterior p(z_0 | z_t)

    def gain(self, a: float) -> Tensor:
        """d z0_hat / d z_t = sqrt(a) S C_t^-1 (d, d)."""
        return math.sqrt(a) * torch.linalg.solve(self.noised(a).cov, self.cov).T

    def tweedie(self, z: Tensor, a: float) -> Tensor:
        """z0_hat = E[z_0 | z_t = z] (B, d)."""
        return self.mean + (z - math.sqrt(a) * self.mean) @ self.gain(a).T

    def posterior_cov(self, a: float) -> Tensor:
        """P = Cov[z_0 | z_t] = S - a S C_t^-1 S (d, d)."""
        return self.cov - math.sqrt(a) * self.gain(a) @ self.cov

    # a linear Gaussian observation y | z_0 ~ N(A z_0, G)

    def observe(self, A: Tensor, G: Tensor, y: Tensor) -> "GaussianPrior":
        """p(z_0 | y) for A (k, d), G (k, k), y (k,)."""
        gain = torch.linalg.solve(A @ self.cov @ A.T + G, A @ self.cov).T  # (d, k)
        cov = self.cov - gain @ A @ self.cov
        return GaussianPrior(self.mean + gain @ (y - A @ self.mean), (cov + cov.T) / 2)

    def observation_log_prob(self, z: Tensor, a: float, A: Tensor, G: Tensor, y: Tensor) -> Tensor:
        """log p(y | z_t = z) = log N(y; A z0_hat, A P A^T + G): (B,), differentiable in z."""
        cov = A @ self.posterior_cov(a) @ A.T + G
        mean = self.tweedie(z, a) @ A.T
        return torch.distributions.MultivariateNormal(mean, (cov + cov.T) / 2).log_prob(y)

    # a log-linear classifier log p(c | z_0) = w.z_0 + const (scale included in w)

    def tilt(self, w: Tensor) -> "GaussianPrior":
        """p(z_0 | c) = N(mean + S w, S)."""
        return GaussianPrior(self.mean + self.cov @ w, self.cov)

    def tilt_gradient(self, a: float, w: Tensor) -> Tensor:
        """Gradient of log p(c | z_t) in z_t: sqrt(a) C_t^-1 S w, the same for every z (d,)."""
        return self.gain(a).T @ w

    # a logistic classifier p(c | z_0) = sigmoid(w.z_0 + b)

    def logistic_log_prob(self, z: Tensor, a: float, w: Tensor, b: float = 0.0, nodes: int = 96) -> Tensor:
        """log p(c | z_t = z) = log E sigmoid(u), u ~ N(w.z0_hat + b, w^T P w): (B,), differentiable in z."""
        x, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(nodes))
        std = (w @ self.posterior_cov(a) @ w).clamp_min(0).sqrt()
        u = (self.tweedie(z, a) @ w + b)[:, None] + std * x  # (B, nodes)
        return torch.logsumexp(torch.nn.functional.logsigmoid(u) + (weight / weight.sum()).log(), 1)

    # distances

    def kl(self, other: "GaussianPrior") -> Tensor:
        """KL(self || other) in nats."""
        p, q = (torch.distributions.MultivariateNormal(g.mean, g.cov) for g in (self, other))
        return torch.distributions.kl_divergence(p, q)


def product(priors: Sequence[GaussianPrior], powers: Sequence[float]) -> GaussianPrior:
    """The normalised product of p_i ** gamma_i: N(L^-1 sum g_i S_i^-1 m_i, L^-1), L = sum g_i S_i^-1."""
    precision = sum(g * torch.linalg.inv(p.cov) for p, g in zip(priors, powers, strict=True))
    shift = sum(g * torch.linalg.solve(p.cov, p.mean) for p, g in zip(priors, powers, strict=True))
    cov = torch.linalg.inv(precision)
    return GaussianPrior(cov @ shift, (cov + cov.T) / 2)


def affine_map(function: Callable[[Tensor], Tensor], d: int) -> tuple[Tensor, Tensor]:
    """Offset (d,) and matrix M (d, d) of a function that is known to be affine: f(z) = offset + z M^T."""
    probes = torch.cat([torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)])
    out = function(probes)
    return out[0], (out[1:] - out[0]).T


def pushforward(function: Callable[[Tensor], Tensor], d: int) -> GaussianPrior:
    """The law of f(z), z ~ N(0, I), for an affine f, such as a deterministic sampler on a Gaussian prior."""
    offset, matrix = affine_map(function, d)
    return GaussianPrior(offset, matrix @ matrix.T)


def sigma_points(d: int) -> Tensor:
    """2d points (2d, d) of zero mean and identity covariance: a quadratic averages exactly over them."""
    points = math.sqrt(d) * torch.eye(d, dtype=torch.float64)
    return torch.cat([points, -points])


def elbo(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    alpha_bar: Tensor,
    noise: Tensor,
    variance: Tensor | float = 1.0,
) -> Tensor:
    """All terms of the variational bound (B,) on log p(x) (Ho et al., arXiv 2006.11239, eq. 5 to 7).

    Args:
        model: noise prediction (B, d) at z (B, d) and times (B,).
        x: clean latents (B, d).
        alpha_bar: (T,) levels.
        noise: (B, d), that of the sample of every q(z_t | x).
        variance: of data for which the variance of the reverse kernels is exact.
    """
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    v = torch.as_tensor(variance, dtype=x.dtype)
    last = alpha_bar[-1].item()
    total = -kl(normal(math.sqrt(last) * x, math.sqrt(1 - last)), normal(0.0, 1.0)).sum(1)
    before = 1.0
    for t, a in enumerate(alpha_bar.tolist()):
        beta = 1 - a / before
        z = math.sqrt(a) * x + math.sqrt(1 - a) * noise
        predicted = (z - math.sqrt(1 - a) * model(z, torch.full((len(x),), t))) / math.sqrt(a)
        of_x, of_z = math.sqrt(before) * beta / (1 - a), math.sqrt(a / before) * (1 - before) / (1 - a)
        forward = (1 - before) / (1 - a) * beta
        reverse = (forward + of_x**2 * v * (1 - a) / (a * v + 1 - a)).sqrt()
        kernel = normal(of_x * predicted + of_z * z, reverse)
        if t == 0:
            total += kernel.log_prob(x).sum(1)
        else:
            total -= kl(normal(of_x * x + of_z * z, math.sqrt(forward)), kernel).sum(1)
        before = a
    return total

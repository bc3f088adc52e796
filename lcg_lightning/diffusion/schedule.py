"""Variance-preserving diffusion: noise schedules, noising, and conversions between eps and x_0.

q(z_t | z_0) = N(sqrt(a) z_0, (1 - a) I) with a = alpha_bar_t (Ho et al., arXiv 2006.11239, eq. 4). Index t runs over
0 .. T-1, from the cleanest noised level to the noisiest. Clean latents have a = 1 and no index. Between two levels, the
log-SNR log(a / (1 - a)) is linear in t.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.devices import upload
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

    @cached_property
    def logsnr(self) -> Tensor:
        """(T,) float64 log-SNR of each level, strictly decreasing."""
        return torch.logit(self.alpha_bar)

    def logsnr_at(self, t: Tensor) -> Tensor:
        """Log-SNR (S,) float64 at times t (S,) within 0 .. T-1, on the device of t."""
        known = upload(self.logsnr, t.device)
        low = t.long().clamp(0, max(0, len(known) - 2))
        high = (low + 1).clamp(max=len(known) - 1)
        return torch.lerp(known[low], known[high], t.double() - low)

    def time_at(self, logsnr: Sequence[float] | np.ndarray) -> list[float]:
        """Times (S,) of log-SNRs (S,), the inverse of :meth:`logsnr_at`; 0 or T-1 beyond the first or last level."""
        known = self.logsnr.numpy()[::-1]
        return [float(t) for t in np.atleast_1d(np.interp(logsnr, known, np.arange(self.num_steps)[::-1]))]


def make_schedule(name: Literal["linear", "cosine", "constant"], num_steps: int = 1000) -> NoiseSchedule:
    """A named schedule.

    Args:
        name: ``linear``: beta from 1e-4 to 0.02 (Ho et al., section 4). ``cosine``: Nichol and Dhariwal
            (arXiv 2102.09672, eq. 17) with beta at most 0.999. ``constant``: beta 0.008, that of DiffAE's
            latent prior.
        num_steps: number T of levels. The betas of ``linear`` and ``constant`` are stated for 1000 steps and are
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

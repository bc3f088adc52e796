"""Diffusion Autoencoders as generators from z_sem and x_T to images, by deterministic DDIM."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lcg_lightning.diffusion.schedule import eps_to_x0, make_schedule, q_sample, x0_to_eps
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator
from lcg_lightning.networks.diffae import DiffAE


class DiffAEGenerator(Generator):
    """A Diffusion Autoencoder over z_sem; its noise is x_T, the details that z_sem does not determine.

    Decoding and inversion are deterministic DDIM (arXiv 2111.15640, eqs. 2 and 8) with clipped x_0.

    Args:
        network: encoder and decoder.
        num_steps: T of the decoder's linear schedule.
        statistics: mean and standard deviation (latent_dim,) with which the checkpoint's prior standardizes latents.
        steps: DDIM steps for decoding; T must be divisible by it, as by 10, 20, 50, 100 or 250.
        invert_steps: DDIM steps for inversion; T must be divisible by it.
    """

    def __init__(
        self,
        network: DiffAE,
        num_steps: int = 1000,
        statistics: tuple[Tensor, Tensor] | None = None,
        steps: int = 20,
        invert_steps: int = 250,
    ) -> None:
        super().__init__()
        self.network, self.statistics = network, statistics
        self.latent_shape, self.image_size = (network.latent_dim,), network.image_size
        self.noise_shape = (3, network.image_size, network.image_size)
        alpha_bar = make_schedule("linear", num_steps).alpha_bar
        self.decoding, self.inverting = _grid(alpha_bar, steps), _grid(alpha_bar, invert_steps)

    @property
    def settings(self) -> dict[str, Any]:
        """Steps for decoding and inversion."""
        return {"steps": len(self.decoding), "invert_steps": len(self.inverting)}

    def encode(self, images: Tensor) -> Tensor:
        """z_sem (B, latent_dim) of images (B, 3, S, S) in [-1, 1]."""
        return torch.cat([self.network.encoder(part) for part in torch.split(images, self.at_once(images))])

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] of z_sem (B, latent_dim) and x_T (B, 3, S, S)."""
        levels = [*self.decoding[::-1], (0, 1.0)]
        return self._follow(levels, self.noise_or_default(latents, noise), latents).clamp(-1.0, 1.0)

    def invert(self, images: Tensor, latents: Tensor) -> Tensor:
        """x_T (B, 3, S, S) from which these latents decode to these images."""
        return self._follow([*self.inverting, (0, 0.0)], images, latents)

    def _follow(self, levels: list[tuple[int, float]], start: Tensor, latents: Tensor) -> Tensor:
        """DDIM through noise levels (time, alpha_bar), from the first to the last."""
        ends, at_once = [], self.at_once(start)
        for x, z in zip(torch.split(start, at_once), torch.split(latents, at_once), strict=True):
            for (t, alpha_bar), (_, target) in pairwise(levels):
                x = self._step(x, t, alpha_bar, target, z)
            ends.append(x)
        return torch.cat(ends)

    def _step(self, x: Tensor, t: int, alpha_bar: float, target: float, z: Tensor) -> Tensor:
        """DDIM from one noise level to another."""
        eps = self.network(x, torch.full((len(x),), t, device=x.device), z)
        x0 = eps_to_x0(x, eps, alpha_bar).clamp(-1.0, 1.0)
        return q_sample(x0, target, x0_to_eps(x, x0, alpha_bar))


def _grid(alpha_bar: Tensor, steps: int) -> list[tuple[int, float]]:
    """Every (T / steps)-th time, starting at 0, with its noise level."""
    total = len(alpha_bar)
    times = range(0, total, -(-total // steps)) if 1 <= steps <= total else []
    if not times or len(times) != steps:
        raise UserError(f"DiffAE: {steps} steps do not divide {total} evenly; use 10, 20, 50, 100 or 250")
    return [(t, float(alpha_bar[t])) for t in times]

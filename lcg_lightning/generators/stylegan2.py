"""StyleGAN2 as a generator over W or W+."""

from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats.fingerprint import fingerprint
from lcg_lightning.formats.preprocess import PreparedNetwork
from lcg_lightning.generators.base import Generator
from lcg_lightning.networks.stylegan2 import StyleGAN2


class StyleGAN2Generator(Generator):
    """A StyleGAN2 (arXiv 1912.04958) over W or W+, with an optional encoder.

    Args:
        network: mapping and synthesis.
        encoder: images (B, 3, H, W) in [-1, 1] -> w (B, w_dim), or (B, num_ws, w_dim) for W+.
        space: one w for all layers, or one for each.
        truncation_psi: truncation of sampled latents, w_avg + psi (w - w_avg).
        noise: per-pixel noise: the trained constants, none, or drawn for each sample.
        class_index: the class to draw, for class-conditional networks.

    Raises:
        UserError: an unknown space, noise or class.
    """

    def __init__(
        self,
        network: StyleGAN2,
        encoder: nn.Module | None = None,
        space: Literal["w", "w+"] = "w",
        truncation_psi: float = 1.0,
        noise: Literal["const", "none", "random"] = "const",
        class_index: int | None = None,
    ) -> None:
        super().__init__()
        if space not in ("w", "w+"):
            raise UserError(f"StyleGAN2: space is {space!r}; use w or w+")
        if noise not in ("const", "none", "random"):
            raise UserError(f"StyleGAN2: noise is {noise!r}; use const, none or random")
        classes = network.mapping.c_dim
        if class_index is not None and not 0 <= class_index < classes:
            has = f"has classes 0 to {classes - 1}" if classes else "knows no classes; leave it out"
            raise UserError(f"StyleGAN2: class_index is {class_index}, but the network {has}")
        self.network, self.encoder = network, encoder
        self.space, self.truncation_psi, self.noise, self.class_index = space, truncation_psi, noise, class_index
        self.latent_shape = (network.w_dim,) if space == "w" else (network.num_ws, network.w_dim)
        self.image_size, self.z_dim = network.img_resolution, network.mapping.z_dim
        if noise == "random":
            self.noise_shape = (sum(r * r for r in network.synthesis.noise_sizes),)
        self.to(memory_format=torch.channels_last)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of mapping and synthesis, without the encoder."""
        return fingerprint(self.network)

    @property
    def settings(self) -> dict[str, Any]:
        """Space, truncation, noise, class and the encoder's fingerprint."""
        encoder = None
        if self.encoder is not None:
            own = isinstance(self.encoder, PreparedNetwork)
            encoder = self.encoder.fingerprint if own else fingerprint(self.encoder)
        names = ("space", "truncation_psi", "noise", "class_index")
        return {name: getattr(self, name) for name in names} | {"encoder": encoder}

    def can(self, method: str) -> bool:
        """Sampling always works, encoding needs an encoder, and inversion is not supported."""
        return super().can(method) and not (method == "encode" and self.encoder is None)

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of latents (B, *latent_shape)."""
        drawn = self.noise_or_default(latents, noise) if self.noise == "random" else latents
        at_once, parts = self.at_once(latents), []
        for w, pixels in zip(torch.split(latents, at_once), torch.split(drawn, at_once), strict=True):
            parts.append(self.network.draw(w, pixels if self.noise == "random" else self.noise))
        return torch.cat(parts).clamp(-1.0, 1.0)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, *latent_shape) of images (B, 3, H, W) in [-1, 1]."""
        if self.encoder is None:
            return super().encode(images)
        w: Tensor = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return self._in_space(w)

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Latents (n, *latent_shape) of standard Gaussian z."""
        mapping = self.network.mapping
        return self.map_z(torch.randn(n, mapping.z_dim, generator=generator).to(mapping.w_avg))

    def map_z(self, z: Tensor) -> Tensor:
        """Latents (B, *latent_shape) of z (B, z_dim), by the mapping network with this truncation and class."""
        mapping = self.network.mapping
        c = None
        if mapping.c_dim:
            if self.class_index is None:
                raise UserError(f"StyleGAN2: draws one of {mapping.c_dim} classes; give class_index, from 0")
            c = torch.zeros(len(z), mapping.c_dim).to(z)
            c[:, self.class_index] = 1.0
        return self._in_space(mapping(z, c, self.truncation_psi))

    def _in_space(self, w: Tensor) -> Tensor:
        if self.space == "w+" and w.ndim == 2:
            w = w[:, None].expand(-1, self.network.num_ws, -1)
        if w.shape[1:] != self.latent_shape:
            hint = "; set space: w+" if w.ndim == 3 and self.space == "w" else ""
            raise UserError(f"StyleGAN2: latents {self.latent_shape} expected, its encoder gives {w.shape[1:]}{hint}")
        return w

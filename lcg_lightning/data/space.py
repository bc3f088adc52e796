"""The latent space of networks and methods: flat latents, standardized per dimension."""

import math
from dataclasses import dataclass

from torch import Tensor

from lcg_lightning.generators.base import Generator


def standardize(latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Flat latents (N, D) with zero mean and unit deviation per dimension; correlations are kept.

    Args:
        latents: (N, *shape).
        mean: (*shape), such as a store's.
        std: (*shape), above 0.
    """
    return ((latents - mean.to(latents)) / std.to(latents)).flatten(1)


def unstandardize(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The inverse of :func:`standardize`: maps flat standardized latents (N, D) to latents (N, *shape)."""
    return z.reshape(-1, *mean.shape) * std.to(z) + mean.to(z)


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """A generator's standardized latents z (B, D), with encoding and decoding."""

    generator: Generator
    mean: Tensor
    """(*latent_shape) float64."""
    std: Tensor
    """(*latent_shape) float64, above 0."""

    @property
    def dim(self) -> int:
        """Width D of a standardized latent."""
        return math.prod(self.mean.shape)

    def standardize(self, latents: Tensor) -> Tensor:
        """Maps the generator's latents (B, *latent_shape) to standardized ones (B, D)."""
        return standardize(latents, self.mean, self.std)

    def unstandardize(self, z: Tensor) -> Tensor:
        """Maps standardized latents (B, D) to the generator's latents (B, *latent_shape)."""
        return unstandardize(z, self.mean, self.std)

    def encode(self, images: Tensor) -> Tensor:
        """Standardized latents (B, D) of images (B, 3, S, S) in [-1, 1].

        Raises:
            UserError: the generator has no encoder.
        """
        return self.standardize(self.generator.encode(images))

    def decode(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] of standardized latents (B, D); noise as in :meth:`Generator.decode`."""
        return self.generator.decode(self.unstandardize(z), noise)

    def decode_samples(self, z: Tensor, seed: int, index: Tensor) -> Tensor:
        """Like :meth:`decode`, with the noise of the samples ``index`` (B,) in a run with this seed."""
        return self.decode(z, self.generator.noise_of(seed, index, z))

"""The space that networks and methods work in: flat latents, standardized per dimension."""

import math
from dataclasses import dataclass

from torch import Tensor

from lcg_lightning.generators.base import Generator


def standardize(latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Flat latents (N, D) of zero mean and unit deviation per dimension; correlations stay.

    Args:
        latents: (N, *shape).
        mean: (*shape), such as a store's.
        std: (*shape), above 0.
    """
    return ((latents - mean.to(latents)) / std.to(latents)).flatten(1)


def unstandardize(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The inverse of :func:`standardize`: latents (N, *shape), ready to decode, of flat standardized ones (N, D)."""
    return z.reshape(-1, *mean.shape) * std.to(z) + mean.to(z)


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """Standardized latents z (B, D) of a generator, and the way between them and images."""

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
        """Standardized latents (B, D) of the generator's own (B, *latent_shape)."""
        return standardize(latents, self.mean, self.std)

    def unstandardize(self, z: Tensor) -> Tensor:
        """The generator's own latents (B, *latent_shape) of standardized ones (B, D)."""
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
        """The same with the noise that belongs to the samples ``index`` (B,) of a run with this seed."""
        return self.decode(z, self.generator.noise_of(seed, index, z))

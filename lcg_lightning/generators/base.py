"""The generator interface: a frozen module that maps latents to images."""

from functools import cached_property
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import Condition
from lcg_lightning.diffusion.noise import SampleNoise, generator_of, sample_noise
from lcg_lightning.errors import UserError
from lcg_lightning.formats.fingerprint import fingerprint

IMAGE_NOISE = 1 << 32
"""Draw number of a sample's image noise; the draws for its latent count from 0."""
CPU_PIXELS = 32 * 64 * 64
"""Image pixels that a CPU processes at a time, so that their feature maps stay in cache."""


class _Frozen(type):
    """Builds an instance, then turns off gradients and training mode in all its submodules."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        module = super().__call__(*args, **kwargs)
        return module.requires_grad_(False).eval()


class Truth(Protocol):
    """What is known of a generator's latents (B, *latent_shape) without a judge."""

    @property
    def schema(self) -> AttributeSchema:
        """The attributes that are known."""

    def outputs(self, latents: Tensor) -> Tensor:
        """The true labels as a sure classifier's outputs (B, K), laid out by the schema."""

    def identity_distance(self, latents: Tensor, others: Tensor) -> Tensor:
        """Distance (B,) in [0, 1] between the identities of two batches of latents."""

    def scene_distance(self, latents: Tensor, others: Tensor) -> Tensor:
        """Distance (B,) in [0, 1] between all that is neither attribute nor identity, such as the background."""

    def sample(self, condition: Condition, noise: SampleNoise) -> tuple[Tensor, Tensor]:
        """Exact samples (B, *latent_shape) given a condition, and (B,) bool: False where none was found.

        Raises:
            UserError: a condition that cannot be sampled.
        """

    def coordinates(self, latents: Tensor) -> Tensor:
        """Coordinates (B, D) float64, with one unit everywhere, of latents: standard normal where these are drawn."""


class Generator(nn.Module, metaclass=_Frozen):
    """A pretrained network from latents to images, frozen.

    Subclasses set ``latent_shape`` and ``image_size`` and implement :meth:`decode`; :meth:`encode` and
    :meth:`sample_latents` are optional. Weights never require gradients and the module stays in evaluation mode, even
    inside a LightningModule that trains. Gradients still flow through ``decode`` to the latents.
    """

    latent_shape: tuple[int, ...]
    """Shape of one latent, e.g. (512,) for W and (18, 512) for W+."""
    image_size: int
    """Height and width of the images, in pixels."""
    noise_shape: tuple[int, ...] | None = None
    """Shape of the standard normal noise that decoding takes besides the latent, such as x_T; None if it takes none."""
    z_dim: int | None = None
    """Width of the Gaussian z that :meth:`map_z` takes; None if latents are not mapped from one."""
    statistics: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation (*latent_shape) that standardize latents, if the generator's file fixes them."""

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, image_size, image_size) in [-1, 1], float32.

        Args:
            latents: (B, *latent_shape).
            noise: (B, *noise_shape); by default one fixed draw for all. Ignored if ``noise_shape`` is None.
        """
        raise NotImplementedError

    def invert(self, images: Tensor, latents: Tensor) -> Tensor:
        """Noise (B, *noise_shape) with which these latents decode to these images (B, 3, H, W) in [-1, 1].

        Raises:
            UserError: this generator cannot invert images.
        """
        self._cannot("invert images", "decode with drawn noise instead")

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, *latent_shape), float32, of images (B, 3, image_size, image_size) in [-1, 1].

        Raises:
            UserError: this generator has no encoder.
        """
        self._cannot("encode images", "use one that has an encoder, or a store of latents it sampled itself")

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Latents (n, *latent_shape), float32, drawn from the generator's own distribution.

        Raises:
            UserError: this generator has no distribution to draw from.
        """
        self._cannot("sample latents", "encode images with it instead")

    def map_z(self, z: Tensor) -> Tensor:
        """Latents (B, *latent_shape) of z (B, z_dim), standard Gaussian; differentiable.

        Raises:
            UserError: this generator maps no z to its latents.
        """
        self._cannot("map z to latents", "work in its latents")

    @property
    def truth(self) -> Truth | None:
        """What is known of latents without a judge; None if that is nothing."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything besides the weights that affects encoding, sampling and decoding, as plain values."""
        return {}

    def can(self, method: str) -> bool:
        """Whether this generator supports ``encode``, ``sample_latents``, ``map_z`` or ``invert``."""
        return getattr(type(self), method) is not getattr(Generator, method)

    def train(self, mode: bool = True) -> "Generator":
        """Stays in evaluation mode, regardless of ``mode``."""
        return super().train(False)

    @cached_property
    def fingerprint(self) -> str:
        """:func:`fingerprint` of the weights, computed at first access; load the weights before."""
        return fingerprint(self)

    def at_once(self, like: Tensor) -> int:
        """Rows to compute at a time, on the device of ``like``: the whole batch, except on a CPU."""
        return max(1, CPU_PIXELS // self.image_size**2) if like.device.type == "cpu" else max(1, len(like))

    def latents_of(self, seed: int, index: Tensor) -> Tensor:
        """Latents (B, *latent_shape) that belong to a run's samples, each drawn by itself.

        Args:
            seed: the run's seed.
            index: global sample indices (B,).

        Raises:
            UserError: this generator has no distribution to draw from, or the seed is negative.
        """
        return torch.cat([self.sample_latents(1, generator_of(seed, i)) for i in index.tolist()])

    def noise_of(self, seed: int, index: Tensor, like: Tensor) -> Tensor | None:
        """The noise (B, *noise_shape) that belongs to a run's samples; None if ``noise_shape`` is None.

        Args:
            seed: the run's seed.
            index: global sample indices (B,).
            like: a tensor with the device and dtype of the result.
        """
        if self.noise_shape is None:
            return None
        return sample_noise(seed, index.cpu(), self.noise_shape, IMAGE_NOISE).to(like)

    def noise_or_default(self, latents: Tensor, noise: Tensor | None) -> Tensor:
        """The given noise (B, *noise_shape), or one fixed draw repeated."""
        if noise is not None:
            return noise
        assert self.noise_shape is not None
        drawn = torch.randn(self.noise_shape, generator=torch.Generator().manual_seed(0))
        return drawn.to(latents).expand(len(latents), *self.noise_shape)

    def _cannot(self, what: str, instead: str) -> NoReturn:
        raise UserError(f"this generator ({type(self).__name__}) cannot {what}; {instead}")

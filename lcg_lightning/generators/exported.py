"""A generator from a TorchScript, torch.export or ONNX program."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.formats.fingerprint import combine
from lcg_lightning.formats.preprocess import PreparedNetwork
from lcg_lightning.formats.programs import Program
from lcg_lightning.generators.base import Generator


class ExportedGenerator(Generator):
    """A generator loaded by :func:`load_program`, with an optional encoder.

    Args:
        program: latents (B, *latent_shape) to images (B, 3, S, S).
        latent_shape: shape of one latent.
        output_range: the program's values for black and white.
        normal: whether its latents are standard normal, so that they can be sampled.
        encoder: images (B, 3, S, S) in [-1, 1] to latents (B, *latent_shape).

    Raises:
        UserError: the program or the encoder returns another shape.
    """

    def __init__(
        self,
        program: Program,
        latent_shape: tuple[int, ...],
        output_range: tuple[float, float] = (-1.0, 1.0),
        normal: bool = False,
        encoder: PreparedNetwork | None = None,
    ) -> None:
        super().__init__()
        self.program, self.encoder, self.normal = program, encoder, normal
        self.latent_shape, self.output_range = tuple(latent_shape), output_range
        if len(output_range) != 2 or not output_range[0] < output_range[1]:
            raise UserError(f"{program.path}: output_range is {list(output_range)}; give the values of black and white")
        with torch.no_grad():
            images = self.decode(torch.zeros(2, *self.latent_shape))  # two, to detect a program exported for one
            shape = tuple(images.shape[1:])
            if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
                raise UserError(f"{program.path} gives {shape} for one latent; it must give an image (3, S, S)")
            self.image_size = shape[1]
            if encoder is not None and (found := encoder(images).shape[1:]) != self.latent_shape:
                raise UserError(
                    f"{program.path}: its encoder gives {tuple(found)} for one image, not a latent {self.latent_shape}"
                )

    def can(self, method: str) -> bool:
        """Encoding needs an encoder; sampling needs ``normal``."""
        lacks = {"encode": self.encoder is None, "sample_latents": not self.normal}
        return super().can(method) and not lacks.get(method, False)

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] of latents (B, *latent_shape)."""
        low, high = self.output_range
        images: Tensor = self.program(latents)
        return ((images - low) * (2 / (high - low)) - 1).clamp(-1.0, 1.0)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, *latent_shape) of images (B, 3, S, S) in [-1, 1]."""
        if self.encoder is None:
            return super().encode(images)
        latents: Tensor = self.encoder(images)
        return latents

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Standard normal latents (n, *latent_shape), if ``normal``."""
        if not self.normal:
            return super().sample_latents(n, generator)
        latents = torch.randn(n, *self.latent_shape, generator=generator, device=generator.device)
        weights = next(self.parameters(), latents)
        return latents.to(weights.device)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the program and its output range, without the encoder."""
        return combine(self.program.fingerprint, self.output_range)

    @property
    def settings(self) -> dict[str, Any]:
        """The encoder's fingerprint."""
        return {"encoder": None if self.encoder is None else self.encoder.fingerprint}

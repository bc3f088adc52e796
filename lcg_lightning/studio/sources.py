"""The faces that visitors edit: a row of the store, an uploaded picture, or one that is drawn."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.methods.unguided import Unguided
from lcg_lightning.studio.pictures import Pixels, pixels
from lcg_lightning.studio.resources import SPLIT, Resources
from lcg_lightning.studio.uploads import read_upload


@dataclass(frozen=True)
class Row:
    """A row of the store's test split."""

    number: int


@dataclass(frozen=True)
class Drawn:
    """A face that the generator draws with a seed, or the prior where the generator cannot."""

    seed: int
    by_prior: bool = False


@dataclass(frozen=True)
class Uploaded:
    """A picture of the visitor's."""

    inverted: bool
    """Whether the generator found noise with which its latents decode to it."""


@dataclass(frozen=True, eq=False)
class Source:
    """What edits start from."""

    origin: Row | Drawn | Uploaded
    latents: Tensor
    """(1, *latent_shape)."""
    noise: Tensor | None
    """(1, *noise_shape), with which every edit of it is decoded."""
    picture: Pixels
    """The decoded latents."""
    outputs: Tensor
    """(1, K), the classifier's."""
    uploaded: Pixels | None = None
    """The picture that was encoded."""
    remark: str = ""
    """What a visitor should know about it."""

    @property
    def name(self) -> str:
        """The source in words."""
        match self.origin:
            case Row(number):
                return f"Face {number} of the {SPLIT} split"
            case Drawn(seed, by_prior):
                return f"Face drawn by the {'prior' if by_prior else 'generator'} with seed {seed}"
            case Uploaded():
                return "Your picture"


def row(resources: Resources, number: float) -> Source:
    """The face of a row.

    Raises:
        UserError: the split has no such row.
    """
    count = len(resources.faces.latents)
    if number not in range(count):
        raise UserError(f"There is no face {number}; the {SPLIT} split has faces 0 to {count - 1}.")
    index = torch.tensor([int(number)])
    latents = resources.faces.latents[index].to(resources.device)
    return _source(resources, Row(int(number)), latents, resources.generator.noise_of(0, index, latents))


def drawn(resources: Resources, seed: int) -> Source:
    """A face drawn by the generator if it can, else by the prior of the main method.

    Raises:
        UserError: a negative seed, or no prior either.
    """
    generator, index = resources.generator, torch.tensor([0])
    by_prior = not generator.can("sample_latents")
    if by_prior:
        prior = resources.main.config.get("prior")
        if prior is None:
            raise UserError("This generator draws no faces, and the method has no prior that could.")
        unguided = resources.prepared(Unguided(prior))
        assert isinstance(unguided, Unguided)
        z = unguided.draw(SampleNoise(seed, index, resources.space.dim, resources.device))
        latents = resources.space.unstandardize(z)
    else:
        latents = generator.latents_of(seed, index).to(resources.device)
    return _source(resources, Drawn(seed, by_prior), latents, generator.noise_of(seed, index, latents))


def uploaded(resources: Resources, file: Path) -> Source:
    """The face of an uploaded picture, encoded; its file is removed.

    Raises:
        UserError: a picture that :func:`~lcg_lightning.studio.uploads.read_upload` refuses, or no encoder.
    """
    generator = resources.generator
    upload = read_upload(file, generator.image_size)
    image = upload.image[None].to(resources.device)
    latents = generator.encode(image)
    inverts = generator.can("invert")
    noise = generator.invert(image, latents) if inverts else generator.noise_of(0, torch.tensor([0]), latents)
    return _source(resources, Uploaded(inverts), latents, noise, pixels(image), upload.remark)


def _source(
    resources: Resources,
    origin: Row | Drawn | Uploaded,
    latents: Tensor,
    noise: Tensor | None,
    uploaded: Pixels | None = None,
    remark: str = "",
) -> Source:
    picture = pixels(resources.generator.decode(latents, noise))
    outputs = resources.read(resources.space.standardize(latents))
    return Source(origin, latents, noise, picture, outputs, uploaded, remark)

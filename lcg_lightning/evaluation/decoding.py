"""Pictures of samples: their latents, decoded with the noise that belongs to each."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from lcg_lightning.data.images import ImageRef
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.evaluation.judged import Judges, Pictures
from lcg_lightning.evaluation.reference import decoder, read_files
from lcg_lightning.formats.fingerprint import combine, digest


class Maker(Protocol):
    """Makes pictures."""

    def __call__(self, z: Tensor, shared: bool = False) -> Pictures:
        """Pictures of standardized latents (B, D); ``shared`` tells those that all methods have, such as sources."""


@dataclass(frozen=True, eq=False)
class Decoding:
    """How an evaluation decodes."""

    space: LatentSpace
    judges: Judges
    seed: int
    """Seed of the noise that is drawn for each sample."""
    truncation_psi: float
    """Factor of standardized latents before decoding."""
    files: list[ImageRef] | None
    """Image file of each row of sources, whose inverted noise is used instead; None to draw noise."""
    resize: bool
    """Whether image files of another size are scaled."""

    def of(self, rows: Tensor, index: Tensor) -> Maker:
        """What makes pictures of standardized latents (B, D) of the samples ``index`` (B,) with sources (B, D)."""
        noise = self._inverted(rows, index)

        def pictures(z: Tensor, shared: bool = False) -> Pictures:
            z = self.truncation_psi * z

            def draw(part: Tensor | slice) -> Tensor:
                if noise is None:
                    return self.space.decode_samples(z[part], self.seed, index[part])
                return self.space.decode(z[part], noise[part])

            mark = self._mark(z, index) if shared and noise is None else ""
            return Pictures(z, draw, self.judges, mark)

        return pictures

    def _mark(self, z: Tensor, index: Tensor) -> str:
        """Identifies the images of latents (B, D) of the samples ``index`` (B,) with noise of their own."""
        content = digest({"latents": self.space.unstandardize(z), "index": index})
        return combine(self._decoder, self.seed, content)

    @cached_property
    def _decoder(self) -> str:
        return decoder(self.space.generator)

    def _inverted(self, rows: Tensor, index: Tensor) -> Tensor | None:
        """The noise (B, *noise_shape) with which sources decode to their image files."""
        if self.files is None:
            return None
        generator = self.space.generator
        latents = self.space.unstandardize(self.truncation_psi * rows)
        images = read_files(self.files, index % len(self.files), generator.image_size, self.resize)
        return generator.invert(images.to(rows.device), latents)

"""Images or latents with their labels, and base classes for data sources."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.images import ImageRef
from lcg_lightning.data.rows import SPLITS, check_labels
from lcg_lightning.errors import UserError
from lcg_lightning.files import plain


@dataclass(frozen=True, eq=False)
class Annotated:
    """Ids, labels and splits of images. Row i of each field belongs to image i."""

    ids: list[str]
    """Unique names."""
    labels: Tensor
    """(N, A) float32 in natural units, NaN where unknown."""
    schema: AttributeSchema
    splits: list[str] | None = None
    """"train", "val" or "test"; if None, a hash of the id decides."""

    def __post_init__(self) -> None:
        check_labels(self.labels, self.schema, self.ids)
        n = len(self.ids)
        if self.splits is not None and (len(self.splits) != n or not set(self.splits) <= set(SPLITS)):
            raise UserError(f"splits must name one of {', '.join(SPLITS)} for each of the {n} ids")


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotatedImages(Annotated):
    """Images with their annotations."""

    paths: Sequence[ImageRef]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.paths) != len(self.ids):
            raise UserError(f"{len(self.paths)} image paths for {len(self.ids)} ids; give one id per image")


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotatedLatents(Annotated):
    """Latents with their annotations."""

    latents: Tensor
    """(N, *shape) float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.latents) != len(self.ids):
            raise UserError(f"{len(self.latents)} latents for {len(self.ids)} ids; give one id per latent")


class DataSource:
    """A data set that a configuration names by class, and that becomes a latent store."""

    def __init__(self, **config: Any) -> None:
        self.config: dict[str, Any] = plain(config)
        """The data set's arguments, as plain JSON values."""


class ImageData(DataSource, ABC):
    """A data set of labelled images."""

    @abstractmethod
    def read(self, image_size: int | None = None) -> AnnotatedImages:
        """Find the images and read their labels.

        Args:
            image_size: size to read from an LMDB that holds several sizes of each image.
        """


class LatentData(DataSource, ABC):
    """A data set of labelled latents of a known generator."""

    @abstractmethod
    def read(self, latent_shape: tuple[int, ...]) -> AnnotatedLatents:
        """Read the latents, in the form that a generator with this latent shape takes, and their labels."""

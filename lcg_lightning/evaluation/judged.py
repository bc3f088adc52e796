"""The input of metrics: pictures, the judges' outputs for them, and targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from torch import Tensor, nn

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.identity import IdentityNetwork

T = TypeVar("T")


class FeatureExtractor(Protocol):
    """Maps images to the features whose distributions are compared."""

    @property
    def name(self) -> str:
        """The features' name in records and tables."""

    @property
    def num_features(self) -> int:
        """Width d of a feature row."""

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Features (B, d) of images (B, 3, H, W) in [-1, 1]."""


class Judges(nn.Module):
    """The networks that judge pictures; each may be None.

    Args:
        attributes: attribute judge, laid out by ``schema``.
        identity: identity network.
        features: features that Fréchet distances compare.
        schema: the attributes of the store.
    """

    def __init__(
        self,
        attributes: AttributeJudge | None,
        identity: IdentityNetwork | None,
        features: FeatureExtractor | None,
        schema: AttributeSchema,
    ) -> None:
        super().__init__()
        self.attributes = None if attributes is None else attributes.select(schema)
        self.identity, self.features, self.schema = identity, features, schema

    def marks(self) -> dict[str, str]:
        """Name and fingerprint of each network that is given: ``judge``, ``identity``, ``features``."""
        networks = {"judge": self.attributes, "identity": self.identity, "features": self.features}
        return {key: f"{n.name} @{n.fingerprint}" for key, n in networks.items() if n is not None}


class Pictures:
    """Decoded pictures and the judges' outputs for them, computed at first access and cached.

    Args:
        images: (B, 3, S, S) in [-1, 1], or a function that returns them.
        judges: the judging networks.
    """

    def __init__(self, images: Tensor | Callable[[], Tensor], judges: Judges) -> None:
        self._images, self._judges = images, judges

    @cached_property
    def images(self) -> Tensor:
        """(B, 3, S, S) in [-1, 1]."""
        images = self._images if isinstance(self._images, Tensor) else self._images()
        return _finite(images, "the generator", "an image")

    @cached_property
    def outputs(self) -> Tensor:
        """Outputs (B, K) of the attribute judge, laid out by the schema."""
        judge = _present(self._judges.attributes, "judge")
        return _finite(judge(self.images), f"judge {judge.name}", "an output")

    @cached_property
    def embeddings(self) -> Tensor:
        """Identity embeddings (B, d), compared by cosine."""
        network = _present(self._judges.identity, "identity")
        return _finite(network.embed(self.images), f"identity network {network.name}", "an embedding")

    @cached_property
    def features(self) -> Tensor:
        """Features (B, F) whose distributions are compared."""
        network = _present(self._judges.features, "features")
        return _finite(network(self.images), f"features {network.name}", "a feature")


@dataclass(frozen=True, eq=False)
class Judged:
    """A batch of a method's samples, ready for the metrics."""

    index: Tensor
    """(B,) int64, global sample indices, independent of the batch size and the number of processes."""
    asked: Tensor
    """(B, A) targets, in natural units; NaN where nothing was asked."""
    steps: Sequence[Pictures]
    """Pictures after each step of an edit; one for generation."""
    source: Pictures | None = None
    """Pictures of the sources of edits; None for generation."""

    @property
    def result(self) -> Pictures:
        """Pictures after the last step."""
        return self.steps[-1]


def _present(network: T | None, option: str) -> T:
    if network is None:
        raise UserError(f"a metric needs the network of {option!r}, but the evaluation has none; name one")
    return network


def _finite(values: Tensor, what: str, one: str) -> Tensor:
    if not bool(values.isfinite().all()):
        rows = (~values.flatten(1).isfinite().all(1)).sum()
        raise UserError(f"{what} gives {one} that is not finite ({int(rows)} of {len(values)} in a batch); check it")
    return values

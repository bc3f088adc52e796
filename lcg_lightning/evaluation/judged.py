"""The input of metrics: pictures, their latents, what judges or the truth say of them, and what was asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Truth
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.kept import once

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
    """What judges pictures: networks, each of which may be None, and the generator's truth if it knows one.

    Labels are the truth's, unless an attribute judge is given.

    Args:
        attributes: attribute judge, laid out by the store's schema.
        identity: identity network.
        features: features that Fréchet distances compare.
        store: the store of the latents, with its attributes.
        space: the space of these latents, with their generator.

    Raises:
        UserError: the store's attributes are not those that the truth knows.
    """

    def __init__(
        self,
        attributes: AttributeJudge | None,
        identity: IdentityNetwork | None,
        features: FeatureExtractor | None,
        store: LatentStore,
        space: LatentSpace,
    ) -> None:
        super().__init__()
        self.attributes = None if attributes is None else attributes.select(store.schema)
        self.identity, self.features, self.space = identity, features, space
        truth = space.generator.truth
        if truth is not None and truth.schema != store.schema:
            raise UserError(
                f"{store.path} has the attributes {', '.join(store.schema.names)}, but the generator knows the truth "
                f"of {', '.join(truth.schema.names)} (or other ranges); make the store again"
            )

    @property
    def truth(self) -> Truth | None:
        """The truth of the generator's latents, if it is known."""
        return self.space.generator.truth

    def marks(self) -> dict[str, str]:
        """Name and fingerprint of all that judges: ``judge``, ``identity``, ``features``, ``truth``."""
        networks = {"judge": self.attributes, "identity": self.identity, "features": self.features}
        found = {key: f"{n.name} @{n.fingerprint}" for key, n in networks.items() if n is not None}
        if self.truth is None:
            return found
        mark = f"truth @{self.space.generator.fingerprint}"
        return {"judge": mark} | found | {"truth": mark}


class Pictures:
    """Pictures with their latents, and what is judged of both, computed at first access and cached.

    Args:
        z: standardized latents (B, D).
        draw: images (B', 3, S, S) in [-1, 1] of some of the rows, which index a (B,) tensor.
        judges: what judges them.
        mark: identifies the images. What networks read off them is then computed once for all methods of a process
            that keeps what it loads (:func:`~lcg_lightning.kept.loaded_once`).
    """

    def __init__(self, z: Tensor, draw: Callable[[Tensor | slice], Tensor], judges: Judges, mark: str = "") -> None:
        self.z, self._draw, self._judges, self._mark = z, draw, judges, mark

    @cached_property
    def images(self) -> Tensor:
        """(B, 3, S, S) in [-1, 1]."""
        return _finite(self._draw(slice(None)), "the generator", "an image")

    def some(self, rows: Tensor) -> Tensor:
        """Images (B', 3, S, S) of the rows (B',); no others are decoded for them."""
        return self.images[rows] if "images" in vars(self) else self._draw(rows)

    @cached_property
    def latents(self) -> Tensor:
        """The generator's latents (B, *latent_shape)."""
        return self._judges.space.unstandardize(self.z)

    @cached_property
    def outputs(self) -> Tensor:
        """Outputs (B, K) of the attribute judge, or true labels in their form, laid out by the schema."""
        judge = self._judges.attributes
        if judge is None and self._judges.truth is not None:
            return _finite(self._judges.truth.outputs(self.latents), "the generator", "a label")
        judge = _present(judge, "judge")
        key = ["outputs", judge.fingerprint, judge.schema.to_json()]
        return self._once(key, lambda: _finite(judge(self.images), f"judge {judge.name}", "an output"))

    @cached_property
    def embeddings(self) -> Tensor:
        """Identity embeddings (B, d), compared by cosine."""
        return self.embedded(_present(self._judges.identity, "identity"))

    @cached_property
    def features(self) -> Tensor:
        """Features (B, F) whose distributions are compared."""
        network = _present(self._judges.features, "features")
        key = ["features", network.fingerprint, network.num_features]
        return self._once(key, lambda: _finite(network(self.images), f"features {network.name}", "a feature"))

    def embedded(self, network: IdentityNetwork) -> Tensor:
        """Embeddings (B, d) by an identity network."""
        what = f"identity network {network.name}"
        key = ["embeddings", network.fingerprint]
        return self._once(key, lambda: _finite(network.embed(self.images), what, "an embedding"))

    def _once(self, key: list[Any], read: Callable[[], Tensor]) -> Tensor:
        if not self._mark:
            return read()
        kind = self.z.device.type
        precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else ""
        return once([self._mark, str(self.z.device), precision, *key], read)


@dataclass(frozen=True, eq=False)
class Judged:
    """A batch of a method's samples, ready for the metrics."""

    index: Tensor
    """(B,) int64, global sample indices, independent of the batch size and the number of processes."""
    wanted: Sequence[Condition]
    """What the result of each step should meet: the merged condition so far. Targets per sample are (B,)."""
    named: Tensor
    """(B, A) bool, the attributes that some step names; an edit should leave the others alone."""
    steps: Sequence[Pictures]
    """Pictures after each step of an edit; one for generation."""
    source: Pictures | None = None
    """Pictures of the sources of edits; None for generation."""
    met_before: Tensor | None = None
    """(B,) bool, the edits that ask for nothing new: their source meets what every step asks, as the judge reads it.
    None for generation, and without a judge."""

    @property
    def asked(self) -> Condition:
        """What the result of the last step should meet."""
        return self.wanted[-1]

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

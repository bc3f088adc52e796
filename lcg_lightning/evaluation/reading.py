"""What is read off results outside an evaluation: how likely they meet what was asked, and whose face they show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lcg_lightning.attributes import TOLERANCE, AttributeSchema
from lcg_lightning.conditions import And, Condition, log_prob, met
from lcg_lightning.conditions.tree import unscaled
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.generators.load import in_zoo
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network
from lcg_lightning.methods.base import Method
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.clean import CleanClassifier, clean_outputs

Outputs = Callable[[Tensor, Tensor], Tensor]
"""Standardized latents (B, D) and their images (B, 3, S, S) in [-1, 1] -> classifier outputs (B, K)."""


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads attributes of results, and recognizes faces."""

    name: str
    """What reads attributes, in words."""
    schema: AttributeSchema
    outputs: Outputs
    identity: IdentityNetwork | None = None

    def read(self, condition: Condition, z: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """How likely each result meets a condition, and whether its likeliest labels do.

        A number counts within :data:`~lcg_lightning.attributes.TOLERANCE` of its target; scales count for nothing.

        Args:
            condition: a tree.
            z: standardized latents (B, D).
            images: what they decode to, (B, 3, S, S) in [-1, 1].

        Returns:
            Probabilities (B,) in [0, 1], and (B,) bool.
        """
        outputs = self.outputs(z, images)
        plain = And(tuple(unscaled(condition)))
        chance = log_prob(plain, outputs, self.schema, TOLERANCE).exp()
        return chance, met(plain, self.schema.predict(outputs), self.schema)

    def likeness(self, images: Tensor, sources: Tensor) -> Tensor:
        """Identity cosines (B,) of images and their sources, both (B, 3, S, S) in [-1, 1]; NaN without a network."""
        if self.identity is None:
            return images.new_full((len(images),), torch.nan)
        return cosine_similarity(self.identity.embed(images), self.identity.embed(sources))


def find_reader(
    generator: Any, store: LatentStore, space: LatentSpace, method: Method, device: str = "cpu"
) -> Reader | None:
    """What can read a method's results; None if nothing can.

    Attributes are read by the judge of a zoo generator, else by the truth of a generator that knows it, else by the
    method's own classifier, which guided it and so is no fair reader. Identity is read for a zoo generator alone.

    Args:
        generator: how the generator was named: a zoo name, or anything else that loads one.
        store: the store that the method was prepared with.
        space: its space, with the generator.
        method: the method, prepared.
        device: device of the results.
    """
    schema, identity = store.schema, None
    if in_zoo(generator):
        identity = load_identity_network(generator).to(device)
        try:
            judge = load_attribute_judge(generator).select(schema).to(device)
        except UserError:  # attributes that the zoo does not know
            pass
        else:
            return Reader(judge.name, schema, lambda z, images: judge(images), identity)
    truth = space.generator.truth
    if truth is not None and truth.schema == schema:
        return Reader("the truth", schema, lambda z, images: truth.outputs(space.unstandardize(z)), identity)
    classifier = getattr(method, "classifier", None)
    if isinstance(classifier, LatentClassifier | CleanClassifier):
        name = f"{method.name}'s own classifier"
        return Reader(name, schema, lambda z, images: clean_outputs(classifier, z), identity)
    return None

"""Preservation of identity in edits."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting


class IdentityCosine(PerSampleMetric):
    """Mean cosine between the identity embeddings of a source and its edit, in [-1, 1].

    ``id`` is for the last step of an edit, ``id/step<k>`` for step k. A zero embedding has cosine 0 with any other.

    >>> from types import SimpleNamespace
    >>> source, edited = (SimpleNamespace(embeddings=torch.tensor([[x, 0.0]])) for x in (2.0, 3.0))
    >>> metric = IdentityCosine()
    >>> metric.update(SimpleNamespace(source=source, steps=[edited], index=torch.tensor([0]), met_before=None))
    >>> metric.compute()["id"]
    Estimate(value=1.0, low=1.0, high=1.0)
    """

    columns = (Column("id", "Identity", low=-1.0, high=1.0),)
    steps = 1

    def applies(self, setting: Setting) -> bool:
        """For edits, if there is an identity network."""
        return setting.edits and "identity" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the number of steps and the identity network."""
        self.steps = setting.steps
        self.columns = (replace(self.columns[0], basis=setting.basis("identity")),)

    @property
    def names(self) -> Sequence[str]:
        """One name per step, then the column's name for the last step."""
        return [*(f"id/step{k + 1}" for k in range(self.steps)), "id"]

    def measure(self, samples: Judged) -> Tensor:
        """Cosines (B, steps + 1)."""
        assert samples.source is not None
        before = samples.source.embeddings.double()
        cosines = [F.cosine_similarity(before, step.embeddings.double()) for step in samples.steps]
        return torch.stack([*cosines, cosines[-1]], 1).clamp(-1, 1)  # rounding may exceed the range


class IdentityDistance(PerSampleMetric):
    """True distances between a source and its edit, by :class:`~lcg_lightning.generators.base.Truth`.

    ``id_distance`` is that of their identities after the last step, ``id_distance/step<k>`` after step k: in the exact
    world the mean absolute difference of the identity factors, 0 for the same face and 1/3 for strangers.
    ``scene_distance`` is the same for what is neither identity nor attribute.
    """

    columns: Sequence[Column] = (
        Column("id_distance", "Identity distance", higher_is_better=False, low=0.0, high=1.0),
        Column("scene_distance", "Scene distance", higher_is_better=False, low=0.0, high=1.0),
    )
    steps = 1

    def applies(self, setting: Setting) -> bool:
        """For edits, if the truth is known."""
        return setting.edits and "truth" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the number of steps and the truth."""
        self.steps, self.setting = setting.steps, setting
        self.columns = tuple(replace(column, basis=setting.basis("truth")) for column in self.columns)

    @property
    def names(self) -> Sequence[str]:
        """Identity for each step, identity and scene for the last."""
        return [*(f"id_distance/step{k + 1}" for k in range(self.steps)), "id_distance", "scene_distance"]

    def measure(self, samples: Judged) -> Tensor:
        """Distances (B, steps + 2)."""
        truth, source = self.setting.truth, samples.source
        assert truth is not None
        assert source is not None
        moved = [truth.identity_distance(source.latents, step.latents) for step in samples.steps]
        return torch.stack([*moved, moved[-1], truth.scene_distance(source.latents, samples.result.latents)], 1)

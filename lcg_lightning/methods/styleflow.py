"""StyleFlow: attributes changed within a conditional flow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lcg_lightning.conditions import Condition, targets
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Edit, Method
from lcg_lightning.models.load import load_clean_classifier, load_flow

CHUNK = 32
"""Samples that are compared with all training rows at once."""


class StyleFlow(Method):
    """A conditional continuous normalizing flow (Abdal et al., arXiv 2008.02401).

    Generation maps a sample's noise to a latent under labels. The flow needs all of them: those that a condition does
    not ask for are those of a training row, drawn at random among the rows that meet the most targets. An edit maps the
    source to noise under its labels, as the classifier reads them, changes the labels asked for, and maps the noise
    back; all steps start from the source's noise, which a second inversion would find again.

    Conditions are targets of single attributes joined by &.

    Args:
        flow: checkpoint of a ``ConditionalFlow``.
        classifier: checkpoint of a ``CleanClassifier``, which reads the labels of sources; only edits need it.
        layers: rows of W+ that an edit of an attribute replaces; all others stay. By default, and for attributes left
            out, edits replace the whole latent. The authors' choice for FFHQ: gender 0-7, glasses 2-3, yaw and pitch
            0-3, bald 0-5, beard 5-9, age 4-7, smile 4-5, light 7-11.
    """

    name = "styleflow"
    sampler = edit_sampler = "dopri5"

    def __init__(self, flow: Path, classifier: Path | None = None, layers: dict[str, list[int]] | None = None) -> None:
        super().__init__(flow=flow, classifier=classifier, layers=layers)
        self.flow_path, self.classifier_path, self.layers = flow, classifier, layers

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads the networks and keeps the training labels.

        Raises:
            UserError: a network does not match the store, or ``layers`` its latents.
        """
        self.flow = load_flow(self.flow_path, store)
        if self.classifier_path is not None:
            self.classifier = load_clean_classifier(self.classifier_path, store)
        self.schema = store.schema
        self.labels = store.split("train").labels
        self.kept = replaced_rows(self.layers, store)

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D); ``nfe`` counts evaluations of the flow's field, as the mean over all samples so far."""
        asked = self._asked(condition, len(noise.index))
        chance = torch.special.ndtr(SampleNoise(noise.seed, noise.index, 1)(1)[:, 0].double())
        parts = zip(torch.split(asked, CHUNK), torch.split(chance, CHUNK), strict=True)
        labels = torch.cat([self._fill(*part) for part in parts])
        z, used = self.flow.to_latents(noise(0), labels.to(noise.device))
        self._count("nfe", used)
        return z

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each edit; ``edit_nfe`` as in :meth:`generate`, by step."""
        if self.classifier_path is None:
            raise UserError("method styleflow: an edit reads the source's labels; give the checkpoint of a classifier")
        read = self.schema.predict(self.classifier(source))
        noise, used = self.flow.to_noise(source, read)
        current, results = source, []
        for step in steps:
            wanted = self._asked(step.merged, len(source)).to(source)
            z, more = self.flow.to_latents(noise, torch.where(wanted.isnan(), read, wanted))
            used = used + more
            asked = ~self._asked(step.asked, len(source)).isnan()  # (B, A)
            current = torch.where(self._replaced(asked).to(source.device), z, current)
            results.append(current)
        self._count("edit_nfe", used / max(1, len(steps)))
        return results

    def _replaced(self, asked: Tensor) -> Tensor:
        """Which numbers of a latent (B, D) an edit of attributes (B, A) replaces, bool."""
        rows = (asked[:, :, None] & self.kept).any(1)  # (B, L)
        width = int(self.flow.hparams["latent_dim"]) // rows.shape[1]
        return rows.repeat_interleave(width, 1)

    def _fill(self, asked: Tensor, chance: Tensor) -> Tensor:
        """All labels (B, A) for targets (B, A): those asked for, and else those of the row that chance (B,) takes."""
        misses = self.schema.misses(self.labels, asked)  # (B, N)
        rank = (misses == misses.amin(1, keepdim=True)).cumsum(1, dtype=torch.int32)  # 1, 2, ... over the best rows
        taken = (chance * rank[:, -1]).int().clamp(max=rank[:, -1] - 1)
        row = self.labels[torch.searchsorted(rank, taken[:, None] + 1)[:, 0]]
        return torch.where(asked.isnan(), row, asked)

    def _asked(self, condition: Condition, batch: int) -> Tensor:
        try:
            return targets(condition, self.schema, batch)
        except UserError as error:
            raise UserError(f"method styleflow: it takes targets of single attributes joined by &; {error}") from None


def replaced_rows(layers: Mapping[str, Sequence[int]] | None, store: LatentStore) -> Tensor:
    """Which rows of a latent (A, L) an edit of each attribute replaces, bool.

    Raises:
        UserError: an unknown attribute, latents that are no rows, or rows that they do not have.
    """
    if layers is None:
        return torch.ones(len(store.schema), 1, dtype=torch.bool)
    if len(store.latent_shape) != 2:
        raise UserError(f"method styleflow: layers are rows of W+, but latents here have shape {store.latent_shape}")
    found = torch.ones(len(store.schema), store.latent_shape[0], dtype=torch.bool)
    for name, rows in layers.items():
        if not rows or not set(rows) <= set(range(found.shape[1])):
            raise UserError(
                f"method styleflow: layers of {name} are {list(rows)}; give some of 0 to {found.shape[1] - 1}"
            )
        found[store.schema.index(name)] = False
        found[store.schema.index(name), list(rows)] = True
    return found

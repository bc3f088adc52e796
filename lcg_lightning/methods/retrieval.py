"""Retrieval: the nearest training latent with the requested attributes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lcg_lightning.conditions import Condition, targets
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.methods.base import Edit, Method

CHUNK = 32
"""Points that are compared with all training rows at once."""


class Retrieval(Method):
    """The nearest training latent to a point, among those whose labels meet the most targets.

    The point is the sample's start noise in generation and the source in editing; distances are Euclidean in
    standardized latents. All results are training samples, so this baseline shows what a method gains by generating new
    latents, and which combinations the training split lacks.
    """

    name = "retrieval"
    latents: Tensor
    labels: Tensor

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Keeps the training split."""
        latents, labels, _ = store.split("train")
        self.schema = store.schema
        self.register_buffer("latents", space.standardize(latents), persistent=False)  # (N, D)
        self.register_buffer("labels", labels, persistent=False)  # (N, A)

    def nearest(self, points: Tensor, condition: Condition) -> Tensor:
        """The latents (B, D) for points (B, D)."""
        found = []
        asked = targets(condition, self.schema, len(points)).to(points)
        for part, wanted in zip(torch.split(points, CHUNK), torch.split(asked, CHUNK), strict=True):
            misses = self.schema.misses(self.labels, wanted)  # (b, N)
            distance = torch.cdist(part, self.latents)
            distance[misses > misses.amin(1, keepdim=True)] = torch.inf
            found.append(self.latents[distance.argmin(1)])
        return torch.cat(found)

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) near the samples' start noise."""
        return self.nearest(noise(0), condition)

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) near the source that meet the merged condition of each step."""
        return [self.nearest(source, step.merged) for step in steps]

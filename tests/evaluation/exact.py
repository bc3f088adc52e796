"""Evaluations in the exact world: a store of it in a second, and methods that need no network."""

import torch

from lcg_lightning.conditions import definite, to_text
from lcg_lightning.data.store import Split, write_store
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.methods.base import Method
from lcg_lightning.synthfaces.faces import SCHEMA

WORLD = {"path": "synthfaces-exact", "curvature": 0.3}
OPTIONS = {"generator": WORLD, "features": "none"}


def write(path, sizes):
    """A store of the exact world: rows of each split, with their true labels."""
    world, g = ExactWorld(WORLD["curvature"]), torch.Generator().manual_seed(0)
    splits = {}
    for name, n in sizes.items():
        w = world.sample_latents(n, g)
        splits[name] = Split(w, world.labels(w), [f"{name}{i}" for i in range(n)])
    return write_store(path, splits, SCHEMA, world.fingerprint, {})


class Nudge(Method):
    """Edits by a fixed random displacement for each step; generates by the same from noise."""

    name = "nudge"

    def __init__(self, size=0.3):
        super().__init__(size=size)
        self.size = size

    def prepare(self, store, space):
        self.way = self.size * torch.randn(space.dim, generator=torch.Generator().manual_seed(1))

    def generate(self, condition, noise):
        return noise(0) + self.way

    def edit(self, source, steps):
        return [source + (k + 1) * self.way for k in range(len(steps))]


class Follows(Method):
    """Moves latents by what is asked of each, and more in later steps, so that all of it shows in the result."""

    name = "follows"

    def prepare(self, store, space):
        self.ways = torch.randn(len(SCHEMA), space.dim, generator=torch.Generator().manual_seed(1))

    def shift(self, condition, n):
        rows = definite(condition, SCHEMA, n)
        if rows is None:
            return 0.2 * self.ways[sum(map(ord, to_text(condition, SCHEMA))) % len(SCHEMA)]
        return 0.2 * (SCHEMA.unit(rows) - 0.3).nan_to_num() @ self.ways

    def generate(self, condition, noise):
        return noise(0) + self.shift(condition, len(noise.index))

    def edit(self, source, steps):
        results = [source]
        for k, step in enumerate(steps):
            results.append(results[-1] * (1 + 0.1 * k) + self.shift(step.asked, len(source)))
        return results[1:]

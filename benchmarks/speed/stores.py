"""Stores of random latents, for parts that need only their size."""

from pathlib import Path

import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.store import Split, write_store

SCHEMA = AttributeSchema(
    (*(Attribute(f"a{i}") for i in range(6)), Attribute("age", kind="continuous", low=18, high=80))
)
"""Six binary attributes and a number, about as many as the demo has."""


def random_store(path: Path, rows: int, dim: int, others: int = 256) -> Path:
    """A store with so many train rows, and a few in val and test."""
    g = torch.Generator().manual_seed(0)

    def split(name: str, n: int) -> Split:
        z = torch.randn(n, dim, generator=g)
        labels = torch.cat([(z[:, :6] > 0).float(), 49 + 10 * z[:, 6:7].clamp(-3, 3)], 1)
        return Split(z, labels, [f"{name}{i}" for i in range(n)])

    sizes = {"train": rows, "val": others, "test": others}
    return write_store(path, {name: split(name, n) for name, n in sizes.items()}, SCHEMA, "random", {})

"""Per-sample noise that does not depend on the batch, the rank or the number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.devices import upload
from lcg_lightning.errors import UserError


def generator_of(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by integers; different integers give independent streams.

    Raises:
        UserError: an integer is negative.
    """
    if min(key) < 0:
        raise UserError(f"seed {min(key)} must be 0 or more")
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)


def check_seed(seed: int) -> None:
    """Raises a UserError unless a seed is 0 or more and fits 64 bits."""
    if not 0 <= seed < 1 << 64:
        raise UserError(f"seed {seed} must be 0 or more and below 2 ** 64")


def sample_noise(seed: int, indices: Sequence[int] | Tensor, shape: tuple[int, ...], draw: int = 0) -> Tensor:
    """Standard normal noise, one independent stream for each (seed, index, draw).

    Streams come from Philox, a counter-based generator (Salmon et al., SC 2011). Seed and index make up its key and the
    draw is a word of its counter, so streams cannot overlap.

    Args:
        seed: the run's seed, 0 or more.
        indices: global sample index of every row, 0 or more.
        shape: shape of one sample.
        draw: number of the draw: 0 for the start, then one for each step that needs fresh noise.

    Returns:
        (B, *shape) float32 on the CPU; row b depends on (seed, indices[b], draw) and nothing else.

    Raises:
        UserError: the seed is negative or does not fit 64 bits.
    """
    check_seed(seed)
    rows = indices.tolist() if isinstance(indices, Tensor) else list(indices)
    out = np.empty((len(rows), *shape), np.float32)
    for row, index in zip(out, rows, strict=True):
        bits = np.random.Philox(key=(index << 64) | seed, counter=draw << 128)
        np.random.Generator(bits).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class SampleNoise:
    """The noise of a batch of samples: call it with a draw number."""

    seed: int
    index: Tensor
    """(B,) global sample indices; kept on the CPU, where noise is drawn."""
    dim: int
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", self.index.cpu())

    def __call__(self, draw: int) -> Tensor:
        """Standard normal noise (B, dim) float32; draw 0 is the start of sampling."""
        return upload(sample_noise(self.seed, self.index, (self.dim,), draw), self.device)

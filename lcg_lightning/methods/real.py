"""The reference row: held-out latents themselves, answered to every question."""

from collections.abc import Sequence

from torch import Tensor

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.methods.base import Edit, Method


class Real(Method):
    """Sample i is row i of the test split (modulo its length), and an edit leaves its source as it is.

    On tasks that ask a sample for its row's own labels this is the ceiling of the generator and the judge.
    """

    name = "real"

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Maps the test split into memory."""
        self.rows, self.space = store.split("test").latents, space

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """The samples' rows (B, D)."""
        rows = self.rows[noise.index.cpu() % len(self.rows)]
        return self.space.standardize(rows.to(noise.device))

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """The source (B, D) after each step."""
        return [source] * len(steps)

"""The reference row: held-out latents, unchanged, for every condition."""

from collections.abc import Sequence

from torch import Tensor

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.methods.base import Edit, Method


class Real(Method):
    """Returns row i of the evaluated split (modulo its length) as sample i, and edits change nothing.

    On tasks that ask a sample for its own row's labels, this is the upper limit that generator and judge allow.
    """

    name = "real"
    ranked = False

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Memory-maps the split."""
        self.rows, self.space = store.split(self.split).latents, space

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """The samples' rows (B, D)."""
        rows = self.rows[noise.index % len(self.rows)]
        return self.space.standardize(rows.to(noise.device))

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """The source (B, D) after each step."""
        return [source] * len(steps)

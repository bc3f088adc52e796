"""What methods share that move latents: sources in edits, unguided samples of a prior in generation."""

from pathlib import Path
from typing import Any

from torch import Tensor

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.diffusion.samplers import Sampler, SamplerName, sampler_text
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Edit, Method
from lcg_lightning.methods.unguided import Unguided


class MovingMethod(Method):
    """A method whose generation is an edit of unguided samples. Subclasses implement ``edit``.

    Args:
        prior: checkpoint of a ``LatentPrior``; None for a method that only edits.
        sampler: sampler of the prior, as in ``Unguided``.
        steps: number of sampling steps.
        config: the subclass's own arguments, for the record.
    """

    def __init__(self, prior: Path | None, sampler: SamplerName | Sampler, steps: int, **config: Any) -> None:
        super().__init__(prior=prior, sampler=sampler_text(sampler), steps=steps, **config)
        self.start = Unguided(prior, sampler, steps) if prior else None

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads the prior, if there is one."""
        self.schema = store.schema
        if self.start:
            self.start.prepare(store, space)
            self.sampler = self.start.sampler

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Unguided samples (B, D), edited to meet the condition.

        Raises:
            UserError: the method has no prior.
        """
        if self.start is None:
            raise UserError(
                f"method {self.name}: generation starts from samples of a prior; set prior to its checkpoint"
            )
        z = self.start.generate(condition, noise)
        self.nfe = self.start.nfe
        return self.edit(z, [Edit(condition, condition)])[0]

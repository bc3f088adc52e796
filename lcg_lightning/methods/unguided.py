"""The prior alone: what chance achieves."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.grids import Grid, logsnr_grid
from lcg_lightning.diffusion.guidance import guide
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.diffusion.samplers import SAMPLERS, evaluations
from lcg_lightning.diffusion.schedule import EpsModel
from lcg_lightning.methods.base import Method
from lcg_lightning.models.load import load_prior

SamplerName = Literal["ddpm", "ddim", "dpmpp_2m", "heun"]


def draw(sampler: str, eps: EpsModel, grid: Grid, noise: SampleNoise) -> Tensor:
    """Latents (B, D) sampled from noise draw 0; a stochastic sampler takes draws 1, 2, ... as it goes."""
    fresh = {"noise": lambda i: noise(i + 1)} if sampler == "ddpm" else {}
    return SAMPLERS[sampler](eps, noise(0), grid, **fresh)


class Unguided(Method):
    """Samples of the prior that know nothing of the condition.

    Args:
        prior: checkpoint of a ``LatentPrior``.
        sampler: name of the sampler.
        steps: number of its steps, on a grid even in log-SNR.
    """

    name = "unguided"

    def __init__(self, prior: Path, sampler: SamplerName = "dpmpp_2m", steps: int = 20) -> None:
        super().__init__(prior=prior, sampler=sampler, steps=steps)
        self.prior_path, self.sampler, self.steps = prior, sampler, steps

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads the prior."""
        self.prior = load_prior(self.prior_path, store)
        self.schema = store.schema
        self.grid = logsnr_grid(self.prior.schedule, self.steps)
        self.nfe = evaluations(self.sampler, self.grid)

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) of the prior."""
        eps = guide(self.prior, None, None, self.schema, self.prior.schedule, self.grid)
        return draw(self.sampler, eps, self.grid, noise)

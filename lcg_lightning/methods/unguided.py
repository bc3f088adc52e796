"""The prior without guidance: chance level."""

from pathlib import Path

from torch import Tensor

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.grids import check_steps, logsnr_grid
from lcg_lightning.diffusion.guidance import guide
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.diffusion.samplers import Noise, Sampler, SamplerName, find_sampler, run, sampler_text
from lcg_lightning.methods.base import Method
from lcg_lightning.models.load import load_prior


class Unguided(Method):
    """Samples of the prior, regardless of the condition.

    Args:
        prior: checkpoint of a ``LatentPrior``.
        sampler: ddpm, ddim, dpmpp_2m, dpmpp_2m_secant, heun, or the import path of a sampler function or class
            (:data:`lcg_lightning.diffusion.samplers.Sampler`).
        steps: number of sampling steps, on a grid evenly spaced in log-SNR; 2 or more.

    Raises:
        UserError: an unknown sampler, or fewer than 2 steps.
    """

    name = "unguided"

    def __init__(self, prior: Path, sampler: SamplerName | Sampler = "dpmpp_2m", steps: int = 20) -> None:
        super().__init__(prior=prior, sampler=sampler_text(sampler), steps=steps)
        check_steps(steps)
        self.sampler, self.sample = sampler_text(sampler), find_sampler(sampler)
        self.prior_path, self.steps = prior, steps

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads the prior."""
        self.prior = load_prior(self.prior_path, store)
        self.schema = store.schema
        self.grid = logsnr_grid(self.prior.schedule, self.steps)

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) of the prior."""
        return self.draw(noise)

    def draw(self, noise: Noise) -> Tensor:
        """Latents (B, D) of the prior, from any noise."""
        eps = guide(self.prior, None, None, self.schema, self.prior.schedule, self.grid)
        latents, self.nfe = run(lambda eps: self.sample(eps, noise, self.grid), eps)
        return latents

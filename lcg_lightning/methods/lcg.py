"""Latent classifier guidance, the method that this package is about."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.grids import logsnr_grid
from lcg_lightning.diffusion.guidance import Source, guide
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.diffusion.samplers import (
    Sampler,
    SamplerName,
    ddim,
    find_sampler,
    invert,
    run,
    sampler_text,
    starting_at,
)
from lcg_lightning.diffusion.schedule import EpsModel
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Edit, Method
from lcg_lightning.models.load import load_classifier, load_prior


class LatentClassifierGuidance(Method):
    """LCG (arXiv 2304.12536): the prior's score plus the gradient of one log-probability.

    An edit adds the source term of :class:`~lcg_lightning.diffusion.guidance.Source` in its observation form, and
    starts from the noise that leads back to the source: DDIM is inverted under prior and source, then run again with
    the condition. So an edit that asks for nothing changes nothing, and what moves is moved by the condition. (From a
    drawn or a zero start, the same target drags every latent towards the mean of the prior.) A step keeps what
    the steps before it asked for.

    Args:
        prior: checkpoint of a ``LatentPrior``.
        classifier: checkpoint of a ``LatentClassifier``.
        scale: guidance scale, the exponent of p(c | z_0).
        tau: how far an edit may go from its source, in standard deviations of standardized latents.
        sampler: name of the sampler of generation.
        steps: steps of sampler and inversion, on a grid even in log-SNR.
        interval: fraction of the time range in which the classifier guides.
        fixed_point: iterations that make each step of the inversion exact.
    """

    name = "lcg"
    edit_sampler = "ddim"

    def __init__(
        self,
        prior: Path,
        classifier: Path,
        scale: float = 2.0,
        tau: float = 1.2,
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
        interval: tuple[float, float] = (0.0, 1.0),
        fixed_point: int = 3,
    ) -> None:
        super().__init__(
            prior=prior,
            classifier=classifier,
            scale=scale,
            tau=tau,
            sampler=sampler_text(sampler),
            steps=steps,
            interval=list(interval),
            fixed_point=fixed_point,
        )
        self.prior_path, self.classifier_path = prior, classifier
        self.scale, self.tau = scale, tau
        self.sampler, self.sample = sampler_text(sampler), find_sampler(sampler)
        self.steps, self.interval, self.fixed_point = steps, interval, fixed_point

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads prior and classifier."""
        self.prior = load_prior(self.prior_path, store)
        self.classifier = load_classifier(self.classifier_path, store)
        for key in ("schedule", "num_steps"):
            a, b = self.prior.hparams[key], self.classifier.hparams[key]
            if a != b:
                raise UserError(
                    f"{self.classifier_path}: trained with {key} {b}, but the prior {self.prior_path} with {a}; "
                    "train both with the same"
                )
        self.schema = store.schema
        self.grid = logsnr_grid(self.prior.schedule, self.steps)

    def _eps(self, condition: Condition | None, source: Source | None = None) -> EpsModel:
        return guide(
            self.prior,
            self.classifier,
            condition,
            self.schema,
            self.prior.schedule,
            self.grid,
            scale=self.scale,
            interval=self.interval,
            source=source,
        )

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) sampled from the prior under the condition."""
        latents, self.nfe = run(lambda eps: self.sample(eps, noise, self.grid), self._eps(condition))
        return latents

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each edit; the source of a step is the result of the last one."""
        results: list[Tensor] = []
        evaluations = 0
        for step in steps:
            held = Source(source, tau=self.tau)
            back = partial(invert, z=source, grid=self.grid, fixed_point=self.fixed_point)
            start, used = run(back, self._eps(None, held))
            evaluations += used
            forth = partial(ddim, noise=starting_at(start), grid=self.grid)
            source, used = run(forth, self._eps(step.merged, held))
            evaluations += used
            results.append(source)
        self.edit_nfe = evaluations / max(1, len(steps))
        return results

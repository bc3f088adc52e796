"""Latent classifier guidance."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lcg_lightning.conditions import Condition
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.grids import check_steps, logsnr_grid
from lcg_lightning.diffusion.guidance import Source, check_guidance, check_tau, guide
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

    An edit adds a source term, a :class:`~lcg_lightning.diffusion.guidance.Source`, and starts from the noise that
    reproduces the source: DDIM is inverted under prior and source, then run again with the condition. So an empty edit
    changes nothing, and every change comes from the condition. (From random or zero noise, the same target pulls every
    latent towards the mean of the prior.) Each step keeps the targets of earlier steps; see
    :func:`lcg_lightning.conditions.merge`.

    Args:
        prior: checkpoint of a ``LatentPrior``.
        classifier: checkpoint of a ``LatentClassifier``.
        scale: guidance scale, the factor of grad log p(c | z_t). At 1, samples follow p(z_0 | c); at other scales they
            follow p(z_0) p(c | z_0)^scale only roughly.
        tau: how far an edit may move from an observed source, in standard deviations of standardized latents; 1.2 by
            default.
        sampler: sampler for generation: ddpm, ddim, dpmpp_2m, heun, or the import path of a sampler function or class
            (:data:`lcg_lightning.diffusion.samplers.Sampler`), such as
            ``lcg_lightning.diffusion.samplers.PredictorCorrector``, which takes Langevin steps.
        steps: steps of sampler and inversion, on a grid evenly spaced in log-SNR; 2 or more.
        interval: fraction of the time range in which the classifier guides. Edits with an observed source evaluate it
            at cleaner times, up to the time at which the noise is tau, so the upper part does not affect them.
        fixed_point: fixed-point iterations that make each inversion step exact; 0 or more.
        source: form of the source term in edits; none omits it.
        eta: weight of the source in the forms bayes and likelihood; 0.5 by default.

    Raises:
        UserError: an option is out of range, or tau or eta is given for a form that does not take it.
    """

    name = "lcg"
    edit_sampler = "ddim"

    def __init__(
        self,
        prior: Path,
        classifier: Path,
        scale: float = 2.0,
        tau: float | None = None,
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
        interval: tuple[float, float] = (0.0, 1.0),
        fixed_point: int = 3,
        source: Literal["observation", "bayes", "likelihood", "none"] = "observation",
        eta: float | None = None,
    ) -> None:
        if source == "observation":
            tau = 1.2 if tau is None else tau
        elif source != "none":
            eta = 0.5 if eta is None else eta
        super().__init__(
            prior=prior,
            classifier=classifier,
            scale=scale,
            tau=tau,
            sampler=sampler_text(sampler),
            steps=steps,
            interval=list(interval),
            fixed_point=fixed_point,
            source=source,
            eta=eta,
        )
        check_guidance(scale, interval)
        check_steps(steps)
        if fixed_point < 0:
            raise UserError(f"method lcg: fixed_point is {fixed_point}; give 0 or more")
        self.prior_path, self.classifier_path = prior, classifier
        self.scale, self.tau, self.source, self.eta = scale, tau, source, eta
        self.sampler, self.sample = sampler_text(sampler), find_sampler(sampler)
        self.steps, self.interval, self.fixed_point = steps, interval, fixed_point
        self._held(torch.zeros(1, 1))

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads prior and classifier.

        Raises:
            UserError: the networks do not match the store or each other, or steps or tau do not fit their schedule.
        """
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
        if self.tau is not None:
            check_tau(self.tau, self.prior.schedule)

    def _held(self, source: Tensor) -> Source | None:
        """The source term for latents (B, D)."""
        if self.source == "none":
            if self.tau is not None or self.eta is not None:
                raise UserError("method lcg: without a source there is no tau or eta; leave them out")
            return None
        return Source(source, self.source, self.tau, self.eta)

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
        """Latents (B, D) after each edit; each step's source is the previous step's result."""
        results: list[Tensor] = []
        evaluations = 0
        for step in steps:
            held = self._held(source)
            back = partial(invert, z=source, grid=self.grid, fixed_point=self.fixed_point)
            start, used = run(back, self._eps(None, held))
            evaluations += used
            forth = partial(ddim, noise=starting_at(start), grid=self.grid)
            source, used = run(forth, self._eps(step.merged, held))
            evaluations += used
            results.append(source)
        self.edit_nfe = evaluations / max(1, len(steps))
        return results

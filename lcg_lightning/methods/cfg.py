"""Classifier-free guidance with a conditional latent prior."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lcg_lightning.conditions import Condition, targets
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.grids import check_steps, logsnr_grid
from lcg_lightning.diffusion.guidance import check_guidance
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
from lcg_lightning.models.load import load_classifier, load_conditional_prior


class ClassifierFreeGuidance(Method):
    """eps(z_t) + scale (eps(z_t, c) - eps(z_t)) with a conditional prior (Ho and Salimans, arXiv 2207.12598, eq. 6).

    Their w is scale - 1: 0 is the unconditional prior, 1 the conditional one, and more exaggerates the condition. A
    condition is a conjunction of values; ``~Hat`` asks for the opposite label. The network was not given choices, so
    ``Hat | Bald`` is refused.

    An edit inverts DDIM at scale 1 under the labels that a classifier reads off the source, then samples from the noise
    found at ``scale``, with all targets so far in place of the labels read. At scale 1, an edit that asks for what was
    read changes nothing. (Inversion at a scale above 1 makes edits overshoot.)

    Args:
        prior: checkpoint of a ``ConditionalPrior``.
        classifier: checkpoint of the ``LatentClassifier`` that reads the source's labels; needed for editing alone.
        scale: guidance scale, 1 + w.
        sampler: sampler for generation, as in ``Unguided``.
        steps: steps of sampler and inversion, on a grid evenly spaced in log-SNR; 2 or more.
        fixed_point: fixed-point iterations for each inversion step, which make it exact in the limit; 0 or more.
        anchor: what a step of a sequence edits, as in ``LatentClassifierGuidance``. With ``original``, all steps share
            one inversion of the source, and their order does not matter; with ``previous``, each has its own.

    Raises:
        UserError: an option is out of range.
    """

    name = "cfg"
    edit_sampler = "ddim"

    def __init__(
        self,
        prior: Path,
        classifier: Path | None = None,
        scale: float = 2.0,
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
        fixed_point: int = 1,
        anchor: Literal["original", "previous"] = "original",
    ) -> None:
        super().__init__(
            prior=prior,
            classifier=classifier,
            scale=scale,
            sampler=sampler_text(sampler),
            steps=steps,
            fixed_point=fixed_point,
            anchor=anchor,
        )
        check_guidance(scale, (0.0, 1.0))
        check_steps(steps)
        if fixed_point < 0:
            raise UserError(f"method cfg: fixed_point is {fixed_point}; give 0 or more")
        self.prior_path, self.classifier_path = prior, classifier
        self.sampler, self.sample = sampler_text(sampler), find_sampler(sampler)
        self.scale, self.steps, self.fixed_point, self.anchor = scale, steps, fixed_point, anchor
        self.passes = 1 if scale in (0, 1) else 2  # of the network for one prediction

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads the prior, and the classifier if there is one."""
        self.prior = load_conditional_prior(self.prior_path, store)
        self.schema = store.schema
        self.grid = logsnr_grid(self.prior.schedule, self.steps)
        if self.classifier_path:
            self.classifier = load_classifier(self.classifier_path, store)

    def _eps(self, labels: Tensor, scale: float) -> EpsModel:
        """The guided noise prediction under label rows (B, A), NaN where nothing is asked."""
        features = self.prior.features(labels)
        table = self.prior.time_table(torch.tensor(self.grid.t, dtype=torch.float64))

        def eps(z: Tensor, i: int) -> Tensor:
            if scale == 0:
                return self.prior.forward_at(z, table[i])
            conditional = self.prior.forward_at(z, table[i], features)
            if scale == 1:
                return conditional
            return torch.lerp(self.prior.forward_at(z, table[i]), conditional, scale)

        return eps

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) of the prior under the condition.

        Raises:
            UserError: a condition that leaves a choice.
        """
        start = noise(0)
        rows = targets(condition, self.schema, len(start)).to(start.device)
        latents, evaluations = run(lambda eps: self.sample(eps, noise, self.grid), self._eps(rows, self.scale))
        self.nfe = self.passes * evaluations
        return latents

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each step.

        With ``anchor: original``, whoever needs only the last result gives only the last step.

        Raises:
            UserError: a condition that leaves a choice, or no classifier to read the source's labels.
        """
        if self.classifier_path is None:
            raise UserError("method cfg: editing reads the source's labels; give the checkpoint of a classifier")
        results: list[Tensor] = []
        evaluations = 0
        for step in steps:
            if not results or self.anchor == "previous":
                before = results[-1] if results else source
                read = self.classifier.read(before)
                back = partial(invert, z=before, grid=self.grid, fixed_point=self.fixed_point)
                start, used = run(back, self._eps(read, 1.0))
                evaluations += used
            rows = targets(step.merged, self.schema, len(source)).to(read)
            forth = partial(ddim, noise=starting_at(start), grid=self.grid)
            result, used = run(forth, self._eps(torch.where(rows.isnan(), read, rows), self.scale))
            evaluations += self.passes * used
            results.append(result)
        self.edit_nfe = evaluations / max(1, len(steps))
        return results

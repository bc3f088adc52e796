"""Latent classifier guidance."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import And, Condition, Not, Or, conjunction, definite, log_prob, merge, named, placed
from lcg_lightning.conditions.tree import unscaled
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.grids import Grid, check_steps, logsnr_grid, observed_grid
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
from lcg_lightning.methods.regression import expected_labels, fit_directions, regression_moves
from lcg_lightning.models.clean import clean_outputs
from lcg_lightning.models.load import load_classifier, load_prior

SCALE, EDIT_SCALE = 2.0, 8.0
"""Guidance scales of generation and of edits; the latter goes with a small tau, as moves are proportional to tau^2."""
MOVES = 3
"""Moves along regression directions, each from a new reading; more gained nothing."""


class LatentClassifierGuidance(Method):
    """LCG (arXiv 2304.12536): the prior's score plus the gradient of one log-probability.

    An edit adds a source term, a :class:`~lcg_lightning.diffusion.guidance.Source`, and starts from the noise that
    reproduces the source: DDIM is inverted under prior and source, then run again with the condition. So an empty edit
    changes nothing beyond the inversion's error, and every other change comes from the condition. (From random or zero
    noise, the same target pulls every latent towards the mean of the prior.) Each step keeps the targets of earlier
    steps; see :func:`lcg_lightning.conditions.merge`.

    Three options keep results near the source. By default all are on: every step is made from the original latents
    (``anchor``), so a result does not depend on the order of the edits; these latents are first moved along regression
    directions to the targets (``start``); and guidance, which corrects what the directions missed, also holds the
    attributes that nobody asked for (``keep``). The plain sequential form is ``anchor: previous``, ``start: source``,
    ``keep: false``.

    Args:
        prior: checkpoint of a ``LatentPrior``.
        classifier: checkpoint of a ``LatentClassifier``.
        scale: guidance scale, the factor of grad log p(c | z_t); by default 2 for generation and 8 for edits. At 1,
            samples follow p(z_0 | c); at other scales they follow p(z_0) p(c | z_0)^scale only roughly.
        tau: how far an edit may move from an observed source, in standard deviations of standardized latents; 0.25 by
            default.
        sampler: sampler for generation: ddpm, ddim, dpmpp_2m, dpmpp_2m_secant, heun, or the import path of a sampler
            function or class (:data:`lcg_lightning.diffusion.samplers.Sampler`), such as
            ``lcg_lightning.diffusion.samplers.PredictorCorrector``, which takes Langevin steps.
        steps: steps of sampler and inversion, on a grid evenly spaced in log-SNR; 2 or more. With an observed source
            the grid is an :func:`~lcg_lightning.diffusion.grids.observed_grid`, on which edits move by about 0.8 of
            what they would from pure noise.
        interval: fraction of the time range in which the classifier guides. Edits with an observed source evaluate it
            at cleaner times, up to the time at which the noise is tau, so the upper part does not affect them.
        fixed_point: fixed-point iterations for each inversion step, which make it exact in the limit; 0 or more.
        source: form of the source term in edits; none omits it.
        eta: weight of the source in the forms bayes and likelihood; 0.5 by default.
        anchor: what a step of a sequence edits, under the targets of all steps so far: the ``original`` source, so that
            errors do not add up, or the ``previous`` step's result.
        start: where an edit starts, and what its source term ties it to: the ``source``, or the source moved by
            ``regression`` (:func:`~lcg_lightning.methods.regression.regression_moves`, three of them). Where a
            condition leaves a choice, this goes to the term that is likeliest at the source. ``filtered`` ties the
            edit to the moved source too, but starts from the noise of the source itself. So the prior takes back what
            leaves the data: of a move m, a normal prior with covariance S lets about S (S + tau^2 I)^-1 m pass. It
            suits curved spaces.
        keep: also ask for what the classifier reads off the original source, for every attribute that nobody asks for.

    Raises:
        UserError: an option is out of range, or tau or eta is given for a form that does not take it; or a filtered
            start without a source term.
    """

    name = "lcg"
    edit_sampler = "ddim"
    directions: Tensor

    def __init__(
        self,
        prior: Path,
        classifier: Path,
        scale: float | None = None,
        tau: float | None = None,
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
        interval: tuple[float, float] = (0.0, 1.0),
        fixed_point: int = 1,
        source: Literal["observation", "bayes", "likelihood", "none"] = "observation",
        eta: float | None = None,
        anchor: Literal["original", "previous"] = "original",
        start: Literal["regression", "filtered", "source"] = "regression",
        keep: bool = True,
    ) -> None:
        if source == "observation":
            tau = 0.25 if tau is None else tau
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
            anchor=anchor,
            start=start,
            keep=keep,
        )
        self.scale, self.edit_scale = (SCALE, EDIT_SCALE) if scale is None else (scale, scale)
        check_guidance(self.scale, interval)
        check_steps(steps)
        if fixed_point < 0:
            raise UserError(f"method lcg: fixed_point is {fixed_point}; give 0 or more")
        if start == "filtered" and source == "none":
            raise UserError("method lcg: a filtered start needs a source term; give a source, or another start")
        self.prior_path, self.classifier_path = prior, classifier
        self.tau, self.source, self.eta = tau, source, eta
        self.sampler, self.sample = sampler_text(sampler), find_sampler(sampler)
        self.steps, self.interval, self.fixed_point = steps, interval, fixed_point
        self.anchor, self.start, self.keep = anchor, start, keep
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
        if self.start != "source":
            directions = torch.full((len(store.schema), space.dim), math.nan)
            try:
                directions = fit_directions(store, space)
            except UserError as error:
                warnings.warn(f"method lcg: {error}; edits start from their sources", stacklevel=2)
            self.register_buffer("directions", directions, persistent=False)

    def _held(self, source: Tensor) -> Source | None:
        """The source term for latents (B, D)."""
        if self.source == "none":
            if self.tau is not None or self.eta is not None:
                raise UserError("method lcg: without a source there is no tau or eta; leave them out")
            return None
        return Source(source, self.source, self.tau, self.eta)

    def _eps(self, condition: Condition | None, scale: float, grid: Grid, source: Source | None = None) -> EpsModel:
        return guide(
            self.prior,
            self.classifier,
            condition,
            self.schema,
            self.prior.schedule,
            grid,
            scale=scale,
            interval=self.interval,
            source=source,
        )

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) sampled from the prior under the condition."""
        latents, self.nfe = run(
            lambda eps: self.sample(eps, noise, self.grid), self._eps(condition, self.scale, self.grid)
        )
        return latents

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each edit.

        With ``anchor: original``, a step depends on the source and its own merged condition alone. Whoever needs only
        the last result gives only the last step: the latents are the same, for the evaluations of one step.

        Raises:
            UserError: latents that are not finite, or a condition that :func:`~lcg_lightning.conditions.merge` refuses
                beside the labels to keep.
        """
        schedule = self.prior.schedule
        grid = self.grid if self.tau is None else observed_grid(schedule, self.steps, self.tau)
        results: list[Tensor] = []
        evaluations = 0
        kept = self._labels(source) if self.keep else None
        for step in steps:
            condition = step.merged if kept is None else keeping(step.merged, kept, self.schema)
            before = results[-1] if results and self.anchor == "previous" else source
            moved = before
            if self.start != "source":
                moved = self._moved(before, step.merged, source if self.keep else None)
            origin = before if self.start == "filtered" else moved
            back = partial(invert, z=origin, grid=grid, fixed_point=self.fixed_point)
            start, used = run(back, self._eps(None, self.edit_scale, grid, self._held(origin)))
            evaluations += used
            start = start + math.sqrt(grid.alpha_bar[0]) * (moved - origin)  # the same noise, about the moved source
            forth = partial(ddim, noise=starting_at(start), grid=grid)
            result, used = run(forth, self._eps(condition, self.edit_scale, grid, self._held(moved)))
            evaluations += used
            results.append(result)
        self.edit_nfe = evaluations / max(1, len(steps))
        return results

    @torch.no_grad()
    def _labels(self, z: Tensor) -> Tensor:
        """The classifier's labels (B, A) of latents (B, D), in natural units and within each attribute's range."""
        labels = self.schema.predict(clean_outputs(self.classifier, z))
        for column, attribute in zip(labels.unbind(1), self.schema, strict=True):
            if attribute.kind == "continuous":
                column.clamp_(attribute.low, attribute.high)
        return labels

    @torch.no_grad()
    def _moved(self, z: Tensor, condition: Condition, like: Tensor | None) -> Tensor:
        """Latents (B, D) moved to what a condition asks for, and elsewhere to the readings of ``like`` (B, D)."""
        outputs = clean_outputs(self.classifier, z)
        wanted = self.schema.unit(likeliest_targets(condition, outputs, self.schema))
        if like is not None:
            wanted = torch.where(wanted.isnan(), expected_labels(self.classifier, like), wanted)
        return regression_moves(z, wanted, self.classifier, self.directions, MOVES)


def likeliest_targets(condition: Condition, outputs: Tensor, schema: AttributeSchema) -> Tensor:
    """One value for each attribute that a condition asks for; a choice falls on the likeliest of its terms.

    Args:
        condition: a tree.
        outputs: classifier outputs (B, K).
        schema: the attributes.

    Returns:
        Targets (B, A) in natural units; NaN where nothing is asked, or ``~Name`` of a categorical attribute.
    """
    rows = outputs.new_full((len(outputs), len(schema)), math.nan)
    for term in unscaled(condition):
        match term:
            case Not(And(terms)):
                term = Or(tuple(Not(each) for each in terms))
        if isinstance(term, Or):
            chances = torch.stack([log_prob(each, outputs, schema) for each in term.terms])  # (terms, B)
            answers = torch.stack([likeliest_targets(each, outputs, schema) for each in term.terms])
            asked = answers[chances.argmax(0), torch.arange(len(outputs), device=outputs.device)]
        else:
            found = definite(term, schema, len(outputs))
            asked = torch.full_like(rows, math.nan) if found is None else found.to(rows)
        rows = torch.where(asked.isnan(), rows, asked)
    return rows


def keeping(condition: Condition, labels: Tensor, schema: AttributeSchema) -> Condition:
    """The condition, and labels (B, A) for the attributes that it does not name.

    Nothing is added for a sample of which nothing is asked, so that an empty edit stays one.
    """
    idle = ~named(condition, schema, len(labels)).any(1, keepdim=True).to(labels.device)
    return merge([conjunction(labels.masked_fill(idle, math.nan), schema), placed(condition, labels.device)])

"""Latent arithmetic: z + scale * direction, the closed form of guidance without a prior."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from lcg_lightning.conditions import Condition, targets
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.samplers import Sampler, SamplerName
from lcg_lightning.errors import UserError
from lcg_lightning.kept import once
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.directions import read_directions
from lcg_lightning.methods.linear import L2, Line, LinearFit, conditional_steps, fit_along, fit_line, shift
from lcg_lightning.methods.moving import MovingMethod


class LatentArithmetic(MovingMethod):
    """Moves latents along the normals of linear classifiers (Shen et al., arXiv 1907.10786).

    The linear models are fitted on the store's training split, or given as published directions. Generation moves
    unguided samples of the prior.

    Args:
        prior: checkpoint of a ``LatentPrior``; needed for generation, not for editing.
        scale: step length for binary attributes. Its unit is the standard deviation of standardized latents for fitted
            models, and the length of the direction for given ones (DiffAE itself uses 0.3 sqrt(512) = 6.8).
        directions: InterFaceGAN boundary files by attribute, or the checkpoint of a DiffAE classifier.
        fit: linear models of binary attributes: logistic regression, or a support vector machine as in the paper.
        conditional: whether to move along each normal less its projection onto the span of the normals of all other
            attributes, so that their linear models predict the same after an edit (the paper's conditional
            manipulation).
        l2: weight of |w|^2 / 2 beside a linear model's mean loss. A larger one turns the normals towards the difference
            of the classes' means.
        sampler: sampler of the prior, as in ``Unguided``.
        steps: number of sampling steps.

    Raises:
        UserError: a scale that is not finite, an l2 that is not positive, an unknown fit, or options of the fit beside
            given directions.
    """

    name = "arithmetic"
    step: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        prior: Path | None = None,
        scale: float = 3.0,
        directions: Path | dict[str, Path] | None = None,
        fit: LinearFit = "logistic",
        conditional: bool = False,
        l2: float = L2,
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
    ) -> None:
        if not math.isfinite(scale):
            raise UserError(f"method arithmetic: scale is {scale}; give a finite number")
        if not 0 < l2 < math.inf:
            raise UserError(f"method arithmetic: l2 is {l2}; give a positive number")
        if fit not in get_args(LinearFit):
            raise UserError(f"method arithmetic: fit is {fit!r}; use {' or '.join(get_args(LinearFit))}")
        if directions is not None and (fit != "logistic" or conditional or l2 != L2):
            raise UserError(
                "method arithmetic: given directions are used as they are; leave fit, conditional and l2 out"
            )
        options = {"scale": scale, "directions": directions, "fit": fit, "conditional": conditional, "l2": l2}
        super().__init__(prior, sampler, steps, **options)
        self.scale, self.directions, self.fit, self.conditional, self.l2 = scale, directions, fit, conditional, l2
        self.name = "-".join(["arithmetic", *["svm"] * (fit == "svm"), *["conditional"] * conditional])

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Fits or reads one line per attribute.

        Raises:
            UserError: directions that do not fit the store, or ``conditional`` and an attribute that depends on others.
        """
        super().prepare(store, space)
        key = ["lines", store.content_hash, self.fit, self.l2, self.config["directions"]]
        lines = once(key, lambda: self._lines(store, space))
        for name, rows in zip(Line._fields, zip(*lines, strict=True), strict=True):
            self.register_buffer(name, torch.stack(rows), persistent=False)
        if self.conditional:
            fitted = ~self.step.isnan().any(1)
            self.step[fitted] = conditional_steps(self.step[fitted])

    def _lines(self, store: LatentStore, space: LatentSpace) -> list[Line]:
        """One line per attribute; NaN where there is none."""
        latents, labels, _ = store.split("train")
        z, units = space.standardize(latents), store.schema.unit(labels)
        given = None if self.directions is None else read_directions(self.directions, store)
        nowhere = torch.full_like(z[0], torch.nan)
        lines = []
        for i, attribute in enumerate(self.schema):
            known = ~units[:, i].isnan()
            if (
                attribute.kind == "categorical"
                or len(torch.unique(units[known, i])) < 2
                or (given is not None and attribute.name not in given)
            ):
                lines.append(Line(nowhere, nowhere, nowhere[0]))
            elif given is None:
                lines.append(fit_line(z[known], units[known, i], self.fit, self.l2))
            else:
                step = (given[attribute.name] / store.std).flatten().to(z)
                lines.append(fit_along(step, z[known], units[known, i]))
        return lines

    def moved(self, z: Tensor, condition: Condition, moves: dict[int, Tensor]) -> Tensor:
        """Latents (B, D) moved for every attribute in a condition.

        Args:
            z: latents (B, D).
            condition: targets of single attributes, joined by &.
            moves: earlier displacements (B, D) by attribute index; a new target undoes the earlier one first. Updated
                in place.
        """
        rows = targets(condition, self.schema, len(z)).to(z)
        for i, attribute in enumerate(self.schema):
            line = Line(self.step[i], self.weight[i], self.bias[i])
            if rows[:, i].isnan().all():
                continue
            if line.step.isnan().any():
                raise UserError(
                    f"method {self.name}: no direction for {attribute.name}; it is categorical, has no labels that "
                    "vary, or is not among the directions given"
                )
            asked = ~rows[:, i, None].isnan()  # (B, 1)
            before = moves.get(i, torch.zeros_like(z))
            start = z - before * asked
            z = shift(start, rows[:, i], attribute, line, self.scale)
            moves[i] = torch.where(asked, z - start, before)
        return z

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each edit; a step moves only the attributes that it asks for.

        A new target for an attribute replaces the earlier one: ``Smiling``, then ``~Smiling`` ends at the source minus
        the step, not at the source.
        """
        results = []
        moves: dict[int, Tensor] = {}
        for step in steps:
            source = self.moved(source, step.asked, moves)
            results.append(source)
        return results

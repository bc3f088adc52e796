"""Latent arithmetic: z + scale * direction, the closed form of guidance without a prior."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import Condition, targets
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.diffusion.samplers import Sampler, SamplerName, sampler_text
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Edit, Method
from lcg_lightning.methods.directions import read_directions
from lcg_lightning.methods.unguided import Unguided


def fit_linear(latents: Tensor, labels: Tensor, l2: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Fits a linear model of one attribute on latents: logistic for labels 0 and 1, least squares otherwise.

    Args:
        latents: (N, D) standardized.
        labels: (N,), all known; 0 or 1, or any real numbers.
        l2: weight of |w|^2 / 2 in the mean loss.

    Returns:
        w (D,) and bias () such that w . z + bias predicts the logit or the number.
    """
    x = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).double()
    y = labels.double()
    penalty = torch.full((x.shape[1],), l2, dtype=x.dtype)
    penalty[-1] = 0.0
    if not bool(((y == 0) | (y == 1)).all()):
        gram = x.T @ x / len(x) + penalty.diag()
        weights = torch.linalg.solve(gram, x.T @ y / len(x))
    else:
        weights = torch.zeros(x.shape[1], dtype=x.dtype)
        for _ in range(25):  # Newton's method; the loss is strictly convex
            p = torch.sigmoid(x @ weights)
            gradient = x.T @ (p - y) / len(x) + penalty * weights
            hessian = (x.T * (p * (1 - p))) @ x / len(x) + penalty.diag() + 1e-9 * torch.eye(x.shape[1])
            weights = weights - torch.linalg.solve(hessian, gradient)
    return weights[:-1].float(), weights[-1].float()


class Line(NamedTuple):
    """An attribute's direction in standardized latents, and a linear model of the attribute."""

    step: Tensor
    """(D,) displacement for one unit of scale."""
    weight: Tensor
    """(D,) such that weight . z + bias predicts a number on its unit scale, or the logit of a binary attribute."""
    bias: Tensor
    """()"""


def fit_line(latents: Tensor, labels: Tensor) -> Line:
    """The line along the normal of :func:`fit_linear`; its step has length 1."""
    weight, bias = fit_linear(latents, labels)
    return Line(weight / weight.norm(), weight, bias)


def fit_along(step: Tensor, latents: Tensor, labels: Tensor) -> Line:
    """The line along a given step (D,), with a linear model fitted to the latents' coordinate along it."""
    toward = step / step.square().sum()
    slope, bias = fit_linear((latents @ toward)[:, None], labels)
    return Line(step, slope * toward, bias)


def shift(z: Tensor, target: Tensor, attribute: Attribute, line: Line, scale: float) -> Tensor:
    """Moves latents along one attribute's line.

    For a binary attribute, they move by +-``scale`` steps. For a continuous one, they move to the point where the
    linear model predicts the target.

    Args:
        z: (B, D) standardized.
        target: (B,) in natural units, NaN where nothing is asked.
        attribute: a binary or continuous attribute.
        line: the attribute's line.
        scale: number of steps for a binary attribute.
    """
    if attribute.kind == "binary":
        steps = (2 * target - 1) * scale
    else:
        wanted = (target - attribute.low) / (attribute.high - attribute.low)
        steps = (wanted - z @ line.weight - line.bias) / (line.weight @ line.step)
    return z + torch.where(target.isnan(), 0.0, steps)[:, None] * line.step


class LatentArithmetic(Method):
    """Moves latents along the normals of linear classifiers (Shen et al., arXiv 1907.10786).

    The linear models are fitted on the store's training split, or given as published directions. Generation moves
    unguided samples of the prior.

    Args:
        prior: checkpoint of a ``LatentPrior``; needed for generation, not for editing.
        scale: step length for binary attributes. Its unit is the standard deviation of standardized latents for fitted
            models, and the length of the direction for given ones (DiffAE itself uses 0.3 sqrt(512) = 6.8).
        directions: InterFaceGAN boundary files by attribute, or the checkpoint of a DiffAE classifier.
        sampler: sampler of the prior, as in ``Unguided``.
        steps: number of sampling steps.
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
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
    ) -> None:
        if not math.isfinite(scale):
            raise UserError(f"method arithmetic: scale is {scale}; give a finite number")
        super().__init__(prior=prior, scale=scale, directions=directions, sampler=sampler_text(sampler), steps=steps)
        self.scale, self.directions = scale, directions
        self.start = Unguided(prior, sampler, steps) if prior else None

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Fits or reads one line per attribute."""
        if self.start:
            self.start.prepare(store, space)
            self.sampler = self.start.sampler
        self.schema: AttributeSchema = store.schema
        latents, labels, _ = store.split("train")
        z, units = space.standardize(latents), store.schema.unit(labels)
        given = None if self.directions is None else read_directions(self.directions, store)
        nowhere = torch.full_like(z[0], torch.nan)
        lines = []
        for i, attribute in enumerate(self.schema):
            known = ~units[:, i].isnan()
            if (
                attribute.kind == "categorical"
                or not known.any()
                or (given is not None and attribute.name not in given)
            ):
                lines.append(Line(nowhere, nowhere, nowhere[0]))
            elif given is None:
                lines.append(fit_line(z[known], units[known, i]))
            else:
                step = (given[attribute.name] / store.std).flatten().to(z)
                lines.append(fit_along(step, z[known], units[known, i]))
        for name, rows in zip(Line._fields, zip(*lines, strict=True), strict=True):
            self.register_buffer(name, torch.stack(rows), persistent=False)

    def moved(self, z: Tensor, condition: Condition, moves: dict[int, Tensor] | None = None) -> Tensor:
        """Latents (B, D) moved for every attribute in a condition.

        Args:
            z: latents (B, D).
            condition: targets of single attributes, joined by &.
            moves: earlier displacements (B, D) by attribute index; a new target undoes the earlier one first. Updated
                in place.
        """
        moves = {} if moves is None else moves
        rows = targets(condition, self.schema, len(z)).to(z)
        for i, attribute in enumerate(self.schema):
            line = Line(self.step[i], self.weight[i], self.bias[i])
            if rows[:, i].isnan().all():
                continue
            if line.step.isnan().any():
                raise UserError(
                    f"method arithmetic: no direction for {attribute.name}; it is categorical, has no labels, or is "
                    "not among the directions given"
                )
            asked = ~rows[:, i, None].isnan()  # (B, 1)
            before = moves.get(i, torch.zeros_like(z))
            start = z - before * asked
            z = shift(start, rows[:, i], attribute, line, self.scale)
            moves[i] = torch.where(asked, z - start, before)
        return z

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Unguided samples (B, D), moved for every attribute in the condition."""
        if self.start is None:
            raise UserError("method arithmetic: generation starts from samples of a prior; give its checkpoint")
        z = self.start.generate(condition, noise)
        self.nfe = self.start.nfe
        return self.moved(z, condition)

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

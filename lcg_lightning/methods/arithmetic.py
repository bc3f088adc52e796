"""Latent arithmetic: z + scale * direction, the closed form that guidance reduces to without a prior."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import Condition, targets
from lcg_lightning.data.store import LatentStore, whiten
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Method, Noise
from lcg_lightning.methods.lcg import SamplerName, Unguided


def fit_linear(latents: Tensor, labels: Tensor, l2: float = 1e-3) -> tuple[Tensor, Tensor]:
    """The best linear model of one attribute on latents: logistic for labels 0 and 1, least squares for others.

    Args:
        latents: (N, D) whitened.
        labels: (N,), all known; 0 or 1, or any real numbers.
        l2: weight of |w|^2 / 2 in the mean loss.

    Returns:
        w (D,) and bias () such that w . z + bias is a logit, or the number itself.
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


def shift(z: Tensor, target: Tensor, attribute: Attribute, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Moves latents along the direction of one attribute.

    A binary attribute moves by ``scale`` standard deviations along +-w / |w|. A continuous one moves to where the
    linear model predicts the target.

    Args:
        z: (B, D) whitened.
        target: (B,) in natural units, NaN where nothing is asked.
        attribute: a binary or continuous one.
        weight: (D,) of :func:`fit_linear`; for a continuous attribute it predicts the unit scale.
        bias: () of :func:`fit_linear`.
        scale: length of a binary attribute's step.
    """
    if attribute.kind == "binary":
        length = (2 * target - 1) * scale / weight.norm()
    else:
        wanted = (target - attribute.low) / (attribute.high - attribute.low)
        length = (wanted - z @ weight - bias) / weight.square().sum()
    moved: Tensor = z + length.nan_to_num(nan=0.0)[:, None] * weight
    return moved


class LatentArithmetic(Method):
    """Moves latents along the normals of linear classifiers (Shen et al., arXiv 1907.10786).

    The linear models are fitted on the store's training split. Generation moves unguided samples of the prior.

    Args:
        prior: checkpoint of a ``LatentPrior``; needed to generate, not to edit.
        scale: length of a binary attribute's step, in standard deviations of whitened latents.
        sampler: name of the prior's sampler.
        steps: its steps.
    """

    name = "arithmetic"

    def __init__(
        self,
        prior: Path | None = None,
        scale: float = 3.0,
        sampler: SamplerName = "dpmpp_2m",
        steps: int = 20,
    ) -> None:
        super().__init__(prior=prior, scale=scale, sampler=sampler, steps=steps)
        self.scale = scale
        self.start = Unguided(prior, sampler, steps) if prior else None

    def prepare(self, store: LatentStore) -> None:
        """Fits one linear model an attribute."""
        if self.start:
            self.start.prepare(store)
            self.sampler, self.nfe = self.start.sampler, self.start.nfe
        self.schema: AttributeSchema = store.schema
        latents, labels, _ = store.split("train")
        z, units = whiten(latents, store.mean, store.std), store.schema.unit(labels)
        fitted = []
        for i, attribute in enumerate(self.schema):
            if attribute.kind == "categorical":
                raise UserError(f"method arithmetic: {attribute.name} is categorical; it has no single direction")
            known = ~units[:, i].isnan()
            fitted.append(fit_linear(z[known], units[known, i]))
        self.register_buffer("weights", torch.stack([w for w, _ in fitted]), persistent=False)
        self.register_buffer("biases", torch.stack([b for _, b in fitted]), persistent=False)

    def moved(self, z: Tensor, condition: Condition) -> Tensor:
        """Latents (B, D) moved by every attribute that a condition asks for."""
        rows = targets(condition, self.schema, len(z)).to(z)
        for i, attribute in enumerate(self.schema):
            z = shift(z, rows[:, i], attribute, self.weights[i], self.biases[i], self.scale)  # type: ignore[index]
        return z

    def generate(self, condition: Condition, noise: Noise) -> Tensor:
        """Unguided samples (B, D), moved by every attribute that is asked for."""
        if self.start is None:
            raise UserError("method arithmetic: generation starts from samples of a prior; give its checkpoint")
        return self.moved(self.start.generate(condition, noise), condition)

    def edit(self, source: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        """Latents (B, D) after each edit; a step moves only what its own condition asks for."""
        results = []
        for condition in conditions:
            source = self.moved(source, condition)
            results.append(source)
        return results

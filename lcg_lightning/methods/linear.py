"""Linear models of single attributes on latents, and the lines along which latent arithmetic moves."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lcg_lightning.attributes import Attribute
from lcg_lightning.errors import UserError

L2 = 1e-3
"""Weight of |w|^2 / 2 beside the mean loss of a linear model."""

LinearFit = Literal["logistic", "svm"]


def fit_linear(latents: Tensor, labels: Tensor, fit: LinearFit = "logistic", l2: float = L2) -> tuple[Tensor, Tensor]:
    """Fits a linear model of one attribute on latents.

    Args:
        latents: (N, D) standardized.
        labels: (N,), all known; 0 or 1, or any real numbers.
        fit: the loss for labels 0 and 1, logistic or, for svm, the squared hinge. Other labels take least squares.
        l2: weight of |w|^2 / 2 in the mean loss.

    Returns:
        w (D,) and bias () such that w . z + bias predicts the number, the logit, or the side of the margin.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.svm import LinearSVC

    x, y = latents.double().cpu().numpy(), labels.double().cpu().numpy()
    if not bool(((labels == 0) | (labels == 1)).all()):
        model = Ridge(alpha=l2 * len(x))
    elif fit == "logistic":
        model = LogisticRegression(C=1 / (l2 * len(x)), solver="newton-cholesky", tol=1e-8)
    else:
        model = LinearSVC(C=1 / (l2 * len(x)), dual=False, tol=1e-8, intercept_scaling=100.0)
    model.fit(x, y)
    return latents.new_tensor(model.coef_).flatten(), latents.new_tensor(model.intercept_).reshape(())


class Line(NamedTuple):
    """An attribute's direction in standardized latents, and a linear model of the attribute."""

    step: Tensor
    """(D,) displacement for one unit of scale."""
    weight: Tensor
    """(D,) such that weight . z + bias predicts a number on its unit scale, or the side of a binary attribute."""
    bias: Tensor
    """()"""


def fit_line(latents: Tensor, labels: Tensor, fit: LinearFit = "logistic", l2: float = L2) -> Line:
    """The line along the normal of :func:`fit_linear`; its step has length 1."""
    weight, bias = fit_linear(latents, labels, fit, l2)
    return Line(weight / weight.norm(), weight, bias)


def fit_along(step: Tensor, latents: Tensor, labels: Tensor) -> Line:
    """The line along a given step (D,), with a linear model fitted to the latents' coordinate along it."""
    toward = step / step.square().sum()
    slope, bias = fit_linear((latents @ toward)[:, None], labels)
    return Line(step, slope * toward, bias)


def conditional_steps(normals: Tensor) -> Tensor:
    """Steps that leave all other linear models unchanged (Shen et al., arXiv 1907.10786, section 3.3).

    Each step is its own normal less the projection onto the span of all others, scaled back to length 1. These are the
    columns of the pseudo-inverse.

    Args:
        normals: (A, D).

    Returns:
        (A, D), with step i orthogonal to every normal but the i-th.

    Raises:
        UserError: a normal lies in the span of the others, so that no step is left.
    """
    if torch.linalg.matrix_rank(normals) < len(normals):
        raise UserError("conditional directions: the linear models of the attributes depend on one another")
    return torch.nn.functional.normalize(torch.linalg.pinv(normals.double()).T, dim=1).to(normals)


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

"""How far does an edit move what it was not asked to move?"""

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.intervals import Estimate, PerSampleMetric, bootstrap_mean


def untouched_drift(before: Tensor, after: Tensor, targets: Tensor, schema: AttributeSchema) -> Tensor:
    """Mean movement of the attributes not asked for, by an attribute classifier's outputs.

    The movement of a binary attribute is the change of its probability, of a categorical one the total
    variation distance between its class probabilities, of a continuous one the change of its predicted mean
    as a share of the range. Probabilities, not decisions, so that a drift below the threshold counts too.

    Args:
        before: Classifier outputs (B, K) for the sources.
        after: Classifier outputs (B, K) for the edits.
        targets: Labels (B, A); NaN = not asked, so untouched.
        schema: How outputs and labels are laid out.

    Returns:
        Drift (B,) float64, 0 = nothing moved; NaN where every attribute was asked.

    >>> from lcg_lightning.attributes import Attribute
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat")))
    >>> before, after = torch.tensor([[-9.0, -100.0]]), torch.tensor([[9.0, 0.0]])
    >>> untouched_drift(before, after, torch.tensor([[1.0, torch.nan]]), schema)
    tensor([0.5000], dtype=torch.float64)
    """
    moved = torch.stack([_movement(before, after, schema, name) for name in schema.names], 1)  # (B, A)
    return torch.where(targets.isnan(), moved, torch.nan).nanmean(1)


def _movement(before: Tensor, after: Tensor, schema: AttributeSchema, name: str) -> Tensor:
    """How far one attribute moved: (B,) float64, of outputs (B, K)."""
    x, y = (outputs[:, schema.head(name)].double() for outputs in (before, after))
    kind = schema[name].kind
    if kind == "binary":
        return (y.sigmoid() - x.sigmoid())[:, 0].abs()
    if kind == "categorical":
        return 0.5 * (y.softmax(1) - x.softmax(1)).abs().sum(1)
    return (y - x)[:, 0].abs()


class UntouchedDrift(PerSampleMetric):
    """Mean of :func:`untouched_drift` over all samples of all processes, with a 95 % interval.

    Lower is better. Samples that were asked for every attribute have nothing untouched and do not count.

    >>> from lcg_lightning.attributes import Attribute
    >>> metric = UntouchedDrift(AttributeSchema((Attribute("Smiling"), Attribute("age", "continuous"))))
    >>> before, after = torch.tensor([[0.0, 0.25, 0.0]]), torch.tensor([[9.0, 0.5, 0.0]])
    >>> metric.update(before, after, torch.tensor([[1.0, torch.nan]]), torch.tensor([0]))
    >>> metric.compute().value
    0.25
    """

    higher_is_better = False

    def __init__(self, schema: AttributeSchema) -> None:
        super().__init__(width=1)
        self.schema = schema

    def update(self, before: Tensor, after: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Adds outputs (B, K) before and after the edit, targets (B, A; NaN = not asked) and indices (B,).

        Raises:
            UserError: an output is not finite.
        """
        if not (before.isfinite().all() and after.isfinite().all()):
            raise UserError("untouched drift: a classifier output is not finite; check the generator's images")
        self.append(untouched_drift(before, after, targets, self.schema)[:, None], indices)

    def compute(self) -> Estimate:
        """The mean drift.

        Raises:
            UserError: no sample has an untouched attribute, or a sample was counted twice.
        """
        drift = self.gathered()
        if not (~np.isnan(drift)).any():
            raise UserError("untouched drift: every sample was asked for every attribute; leave one out to measure")
        return bootstrap_mean(drift)[0]

"""Do the generated images have the attributes that were asked for?"""

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.intervals import Estimate, PerSampleMetric, bootstrap_mean

JOINT_TOLERANCE = 0.1
"""How far, as a share of its range, a continuous attribute may be off and still count as met jointly."""


def attribute_scores(predicted: Tensor, targets: Tensor, schema: AttributeSchema) -> Tensor:
    """How well each sample meets each attribute asked of it, and all of them at once.

    A binary or categorical attribute scores 1 if equal, else 0; a continuous one 1 - |error| as a share of
    its range, at least 0. A sample meets all jointly if its discrete attributes are equal and its continuous
    ones within ``JOINT_TOLERANCE``.

    Args:
        predicted: Labels (B, A) in natural units.
        targets: Labels (B, A) in natural units; NaN = not asked.
        schema: What the columns are.

    Returns:
        Scores (B, A + 2) float64 in [0, 1]: each attribute, the mean of those asked, joint; NaN = not asked.

    Raises:
        UserError: a prediction that was asked for is NaN.

    >>> from lcg_lightning.attributes import Attribute
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("yaw", "continuous", low=-45, high=45)))
    >>> attribute_scores(torch.tensor([[1.0, 9.0]]), torch.tensor([[1.0, 27.0]]), schema)
    tensor([[1.0000, 0.8000, 0.9000, 0.0000]], dtype=torch.float64)
    """
    asked = ~targets.isnan()
    if (predicted.isnan() & asked).any():
        name = schema.names[int((predicted.isnan() & asked).any(0).nonzero()[0])]
        raise UserError(f"attribute accuracy: a prediction of {name} is NaN; check the attribute classifier")
    continuous = torch.tensor([a.kind == "continuous" for a in schema], device=targets.device)
    error = (schema.unit(predicted.double()) - schema.unit(targets.double())).abs()
    each = torch.where(continuous, (1 - error).clamp(min=0), (error == 0).double())
    met = torch.where(continuous, error <= JOINT_TOLERANCE, error == 0)
    joint = torch.where(asked.any(1), (met | ~asked).all(1).double(), torch.nan)
    each = torch.where(asked, each, torch.nan)
    return torch.cat((each, each.nanmean(1, keepdim=True), joint[:, None]), 1)


class AttributeAccuracy(PerSampleMetric):
    """Accuracy of the attributes asked for, over all samples of all processes, with 95 % bootstrap intervals.

    ``compute`` returns ``acc`` (mean over samples of the mean over their asked attributes), ``acc_joint``
    (share of samples that meet all they were asked) and ``acc/<attribute>`` for each attribute that was ever
    asked; the scores are those of :func:`attribute_scores`.

    >>> from lcg_lightning.attributes import Attribute
    >>> metric = AttributeAccuracy(AttributeSchema((Attribute("Smiling"), Attribute("Hat"))))
    >>> asked = torch.tensor([[1.0, torch.nan], [1.0, torch.nan]])
    >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), asked, torch.tensor([0, 1]))
    >>> {name: estimate.value for name, estimate in metric.compute().items()}
    {'acc/Smiling': 0.5, 'acc': 0.5, 'acc_joint': 0.5}
    """

    higher_is_better = True

    def __init__(self, schema: AttributeSchema) -> None:
        super().__init__(width=len(schema) + 2)
        self.schema = schema

    def update(self, predicted: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Adds predicted labels (B, A), targets (B, A; NaN = not asked) and global sample indices (B,)."""
        self.append(attribute_scores(predicted, targets, self.schema), indices)

    def compute(self) -> dict[str, Estimate]:
        """Every accuracy by name.

        Raises:
            UserError: nothing was asked of any sample, or a sample was counted twice.
        """
        scores = self.gathered()
        keep = np.flatnonzero(np.isfinite(scores).sum(0))
        if not len(keep):
            raise UserError("attribute accuracy: nothing was asked of any sample; check the task's condition")
        names = [f"acc/{name}" for name in self.schema.names] + ["acc", "acc_joint"]
        return dict(zip([names[i] for i in keep], bootstrap_mean(scores[:, keep]), strict=True))

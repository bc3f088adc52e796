"""Accuracy of the requested attributes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting


def attribute_scores(predicted: Tensor, targets: Tensor, schema: AttributeSchema) -> Tensor:
    """Score of each sample for each requested attribute, and for all of them jointly.

    A binary or categorical attribute scores 1 if equal, else 0. A continuous one scores 1 - |error|, with the error as
    a share of its range, but at least 0. A sample meets its targets jointly if it meets each of them by
    :meth:`AttributeSchema.met`.

    Args:
        predicted: Labels (B, A) in natural units.
        targets: Labels (B, A) in natural units; NaN = not asked.
        schema: Attributes of the columns.

    Returns:
        Scores (B, A + 2) float64 in [0, 1]: each attribute, the mean of those asked, joint; NaN = not asked.

    Raises:
        UserError: the prediction of a requested attribute is NaN.

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
    joint = torch.where(asked.any(1), schema.met(predicted, targets).all(1).double(), torch.nan)
    each = torch.where(asked, each, torch.nan)
    return torch.cat((each, each.nanmean(1, keepdim=True), joint[:, None]), 1)


class AttributeAccuracy(PerSampleMetric):
    """Accuracy of the requested attributes over all samples, as predicted by the judge.

    ``acc_joint`` is the share of samples that meet all their targets. ``acc`` is the mean over samples of the mean
    score of their requested attributes. ``acc/<attribute>`` is the mean score of one attribute over the samples that
    were asked for it. The scores are those of :func:`attribute_scores`.

    >>> from types import SimpleNamespace
    >>> from lcg_lightning.attributes import Attribute
    >>> metric = AttributeAccuracy()
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat")))
    >>> metric.prepare(Setting(schema, networks={"judge": "mine"}))
    >>> result = SimpleNamespace(outputs=torch.tensor([[2.0, -2.0], [-2.0, -2.0]]))  # logits
    >>> asked = torch.tensor([[1.0, torch.nan], [1.0, torch.nan]])
    >>> metric.update(SimpleNamespace(result=result, asked=asked, index=torch.arange(2)))
    >>> {name: estimate.value for name, estimate in metric.compute().items()}
    {'acc/Smiling': 0.5, 'acc': 0.5, 'acc_joint': 0.5}
    """

    columns: Sequence[Column] = (
        Column("acc_joint", "Joint accuracy", low=0.0, high=1.0),
        Column("acc", "Accuracy", low=0.0, high=1.0),
    )

    def applies(self, setting: Setting) -> bool:
        """If there is a judge."""
        return "judge" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the attributes and the judge."""
        self.schema = setting.schema
        self.columns = tuple(replace(column, basis=setting.basis("judge")) for column in self.columns)

    @property
    def names(self) -> Sequence[str]:
        """One name per attribute, then their mean, then joint accuracy."""
        return [*(f"acc/{name}" for name in self.schema.names), "acc", "acc_joint"]

    def measure(self, samples: Judged) -> Tensor:
        """Scores (B, A + 2); NaN where nothing was asked."""
        return attribute_scores(self.schema.predict(samples.result.outputs), samples.asked, self.schema)

"""Do the generated images have the attributes that were asked for?"""

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
    """How well each sample meets each attribute asked of it, and all of them at once.

    A binary or categorical attribute scores 1 if equal, else 0; a continuous one 1 - |error| as a share of
    its range, at least 0. A sample meets all jointly if it meets each by :meth:`AttributeSchema.met`.

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
    joint = torch.where(asked.any(1), schema.met(predicted, targets).all(1).double(), torch.nan)
    each = torch.where(asked, each, torch.nan)
    return torch.cat((each, each.nanmean(1, keepdim=True), joint[:, None]), 1)


class AttributeAccuracy(PerSampleMetric):
    """Accuracy of the attributes asked for, read by the judge, over all samples.

    ``acc_joint`` is the share of samples that meet all they were asked, ``acc`` the mean over samples of the mean
    over their asked attributes, ``acc/<attribute>`` that of one attribute over the samples that were asked for it;
    the scores are those of :func:`attribute_scores`.

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
        """Where there is a judge."""
        return "judge" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Notes the attributes, and who judges them."""
        self.schema = setting.schema
        self.columns = tuple(replace(column, basis=setting.basis("judge")) for column in self.columns)

    @property
    def names(self) -> Sequence[str]:
        """One an attribute, their mean, and joint accuracy."""
        return [*(f"acc/{name}" for name in self.schema.names), "acc", "acc_joint"]

    def measure(self, samples: Judged) -> Tensor:
        """Scores (B, A + 2); NaN where nothing was asked."""
        return attribute_scores(self.schema.predict(samples.result.outputs), samples.asked, self.schema)

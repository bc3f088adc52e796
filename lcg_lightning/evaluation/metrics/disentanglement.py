"""How far does an edit move what it was not asked to move?"""

from dataclasses import replace

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting


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
    """Mean of :func:`untouched_drift` over all samples, from the source to the last step of its edit.

    Samples that were asked for every attribute have nothing untouched and do not count.

    >>> from types import SimpleNamespace
    >>> from lcg_lightning.attributes import Attribute
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("age", "continuous")))
    >>> metric = UntouchedDrift()
    >>> metric.prepare(Setting(schema, edits=True, networks={"judge": "mine"}))
    >>> before, after = (SimpleNamespace(outputs=torch.tensor([row])) for row in ([0.0, 0.25, 0.0], [9.0, 0.5, 0.0]))
    >>> asked, index = torch.tensor([[1.0, torch.nan]]), torch.tensor([0])
    >>> metric.update(SimpleNamespace(source=before, result=after, asked=asked, index=index))
    >>> metric.compute()["drift"].value
    0.25
    """

    columns = (Column("drift", "Drift", higher_is_better=False, low=0.0),)

    def applies(self, setting: Setting) -> bool:
        """For edits, where there is a judge."""
        return setting.edits and "judge" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Notes the attributes, and whose outputs they are read from."""
        self.schema = setting.schema
        self.columns = (replace(self.columns[0], basis=setting.basis("judge")),)

    def measure(self, samples: Judged) -> Tensor:
        """Drifts (B, 1); NaN where every attribute was asked."""
        assert samples.source is not None
        moved = untouched_drift(samples.source.outputs, samples.result.outputs, samples.asked, self.schema)
        return moved[:, None]

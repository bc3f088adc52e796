"""Drift of the attributes that an edit should not change."""

from dataclasses import replace

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import Condition
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.accuracy import attribute_scores
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting


def untouched_drift(before: Tensor, after: Tensor, named: Tensor, schema: AttributeSchema) -> Tensor:
    """Mean change of the attributes that no step names, measured on an attribute classifier's outputs.

    The change of a binary attribute is that of its probability; of a categorical one, the total variation distance
    between its class probabilities; of a continuous one, that of its predicted mean as a share of the range. It uses
    probabilities instead of decisions, so that drift below the threshold counts too.

    Args:
        before: Classifier outputs (B, K) for the sources.
        after: Classifier outputs (B, K) for the edits.
        named: (B, A) bool; False = no step names the attribute, so it should stay.
        schema: Layout of outputs and labels.

    Returns:
        Drift (B,) float64, 0 = no change; NaN where every attribute is named.

    >>> from lcg_lightning.attributes import Attribute
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat")))
    >>> before, after = torch.tensor([[-9.0, -100.0]]), torch.tensor([[9.0, 0.0]])
    >>> untouched_drift(before, after, torch.tensor([[True, False]]), schema)
    tensor([0.5000], dtype=torch.float64)
    """
    moved = _movements(before, after, schema)
    return torch.where(named.to(moved.device), torch.nan, moved).nanmean(1)


def edit_strength(before: Tensor, after: Tensor, asked: Condition, named: Tensor, schema: AttributeSchema) -> Tensor:
    """Disentangled edit strength: the gain in what was asked, minus the largest change of anything else.

    The gain is the mean :func:`~lcg_lightning.evaluation.metrics.accuracy.attribute_scores` of the requested
    attributes after the edit minus that before it; for a condition that leaves a choice, that of the joint score. The
    change of an attribute is that of :func:`untouched_drift`. So 1 is a complete edit of sources that had nothing of
    what was asked, and 0 is what doing nothing gets. LACE (arXiv 2110.10873) reports a figure of that name from
    accuracies over all samples; this one is defined here, for each sample, and the two cannot be compared.

    Args:
        before: Classifier outputs (B, K) for the sources.
        after: Classifier outputs (B, K) for the edits.
        asked: What the edit should meet; targets per sample are (B,).
        named: (B, A) bool; False = no step names the attribute, so it should stay.
        schema: Layout of outputs and labels.

    Returns:
        Strength (B,) float64 in [-2, 1].

    >>> from lcg_lightning.attributes import Attribute
    >>> from lcg_lightning.conditions import parse
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat"), Attribute("Bald")))
    >>> before, after = torch.tensor([[-90.0, -90.0, 0.0]]), torch.tensor([[90.0, 0.0, 0.0]])
    >>> edit_strength(before, after, parse("Smiling", schema), torch.tensor([[True, False, False]]), schema)
    tensor([0.5000], dtype=torch.float64)
    """
    was, now = (attribute_scores(schema.predict(x), asked, schema)[:, -2:] for x in (before, after))
    gain = now - was
    gain = torch.where(gain[:, 0].isnan(), gain[:, 1], gain[:, 0])
    moved = _movements(before, after, schema)
    return gain - moved.masked_fill(named.to(moved.device), 0.0).amax(1)


def _movements(before: Tensor, after: Tensor, schema: AttributeSchema) -> Tensor:
    """Change (B, A) float64 of each attribute, from outputs (B, K)."""
    return torch.stack([_movement(before, after, schema, name) for name in schema.names], 1)


def _movement(before: Tensor, after: Tensor, schema: AttributeSchema, name: str) -> Tensor:
    """Change (B,) float64 of one attribute, from outputs (B, K)."""
    x, y = (outputs[:, schema.head(name)].double() for outputs in (before, after))
    kind = schema[name].kind
    if kind == "binary":
        return (y.sigmoid() - x.sigmoid())[:, 0].abs()
    if kind == "categorical":
        return 0.5 * (y.softmax(1) - x.softmax(1)).abs().sum(1)
    return (y - x)[:, 0].abs()


class UntouchedDrift(PerSampleMetric):
    """Mean of :func:`untouched_drift` over all samples, from the source to the last step of its edit.

    Samples whose steps name every attribute have no untouched attribute and do not count.

    >>> from types import SimpleNamespace
    >>> from lcg_lightning.attributes import Attribute
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("age", "continuous")))
    >>> metric = UntouchedDrift()
    >>> metric.prepare(Setting(schema, edits=True, networks={"judge": "mine"}))
    >>> before, after = (SimpleNamespace(outputs=torch.tensor([row])) for row in ([0.0, 0.25, 0.0], [9.0, 0.5, 0.0]))
    >>> named, index = torch.tensor([[True, False]]), torch.tensor([0])
    >>> metric.update(SimpleNamespace(source=before, result=after, named=named, index=index, met_before=None))
    >>> metric.compute()["drift"].value
    0.25
    """

    columns = (Column("drift", "Drift", higher_is_better=False, low=0.0),)

    def applies(self, setting: Setting) -> bool:
        """For edits, if there is a judge."""
        return setting.edits and "judge" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the attributes and the judge."""
        self.schema = setting.schema
        self.columns = (replace(self.columns[0], basis=setting.basis("judge")),)

    def measure(self, samples: Judged) -> Tensor:
        """Drifts (B, 1); NaN where every attribute is named."""
        assert samples.source is not None
        moved = untouched_drift(samples.source.outputs, samples.result.outputs, samples.named, self.schema)
        return moved[:, None]


class EditStrength(UntouchedDrift):
    """Mean :func:`edit_strength` over all samples, from the source to the last step of its edit."""

    columns = (Column("des", "Edit strength", low=-2.0, high=1.0),)

    def measure(self, samples: Judged) -> Tensor:
        """Strengths (B, 1)."""
        assert samples.source is not None
        before, after = samples.source.outputs, samples.result.outputs
        return edit_strength(before, after, samples.asked, samples.named, self.schema)[:, None]

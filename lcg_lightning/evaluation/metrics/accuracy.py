"""Accuracy of what was asked."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import Condition, definite, met, named
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting


def attribute_scores(predicted: Tensor, asked: Condition, schema: AttributeSchema) -> Tensor:
    """Score of each sample for each attribute that it was asked for, and their mean.

    A binary or categorical attribute scores 1 if equal, else 0. A continuous one scores 1 - |error|, with the error as
    a share of its range, but at least 0. A condition that leaves a choice, such as ``A | B``, asks for no attribute in
    particular.

    Args:
        predicted: Labels (B, A) in natural units.
        asked: Any condition; targets per sample are (B,).
        schema: Attributes of the columns.

    Returns:
        Scores (B, A + 1) float64 in [0, 1]: each attribute, the mean of those asked; NaN = not asked.

    Raises:
        UserError: the prediction of a named attribute is NaN.

    >>> from lcg_lightning.attributes import Attribute
    >>> from lcg_lightning.conditions import parse
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("yaw", "continuous", low=-45, high=45)))
    >>> attribute_scores(torch.tensor([[1.0, 9.0]]), parse("Smiling & yaw=27", schema), schema)
    tensor([[1.0000, 0.8000, 0.9000]], dtype=torch.float64)
    """
    _asked_of(predicted, asked, schema)
    rows = _targets(asked, predicted, schema)
    continuous = torch.tensor([a.kind == "continuous" for a in schema], device=rows.device)
    error = (schema.unit(predicted.double()) - schema.unit(rows)).abs()
    each = torch.where(continuous, (1 - error).clamp(min=0), (error == 0).double())
    each = torch.where(rows.isnan(), torch.nan, each)
    return torch.cat((each, each.nanmean(1, keepdim=True)), 1)


def scores_without(predicted: Tensor, asked: Condition, schema: AttributeSchema) -> Tensor:
    """Joint score of each sample without each attribute: of the others that it was asked for.

    Args:
        predicted: Labels (B, A) in natural units.
        asked: Any condition; targets per sample are (B,).
        schema: Attributes of the columns.

    Returns:
        Scores (B, A) float64, 0 or 1; NaN where the attribute, or no other one, was asked for.

    >>> from lcg_lightning.attributes import Attribute
    >>> from lcg_lightning.conditions import parse
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat"), Attribute("Bald")))
    >>> scores_without(torch.tensor([[1.0, 0.0, 0.0]]), parse("Smiling & Hat", schema), schema)
    tensor([[0., 1., nan]], dtype=torch.float64)
    """
    rows = _targets(asked, predicted, schema)
    missed = (~schema.met(predicted, rows)).double()  # (B, A)
    others = missed.sum(1, keepdim=True) - missed
    told = ~rows.isnan()
    return torch.where(told & (told.sum(1, keepdim=True) > 1), (others == 0).double(), torch.nan)


def _asked_of(predicted: Tensor, asked: Condition, schema: AttributeSchema) -> Tensor:
    """The attributes (B, A) bool that a condition names; raises a UserError if the prediction of one is NaN."""
    found = named(asked, schema, len(predicted)).to(predicted.device)
    if (unknown := predicted.isnan() & found).any():
        name = schema.names[int(unknown.any(0).nonzero()[0])]
        raise UserError(f"attribute accuracy: a prediction of {name} is NaN; check the attribute classifier")
    return found


def _targets(asked: Condition, predicted: Tensor, schema: AttributeSchema) -> Tensor:
    """Target rows (B, A) float64 of a conjunction, NaN where not asked; all NaN for a condition with a choice."""
    rows = definite(asked, schema, len(predicted))
    return torch.full_like(predicted, torch.nan).double() if rows is None else rows.to(predicted.device).double()


def joint_scores(labels: Sequence[Tensor], wanted: Sequence[Condition], schema: AttributeSchema) -> Tensor:
    """Whether the result of each step meets the whole of what it should, by :func:`~lcg_lightning.conditions.met`.

    Args:
        labels: Labels (B, A) of each step's result, natural units.
        wanted: What each should meet; targets per sample are (B,).
        schema: Attributes of the columns.

    Returns:
        Scores (B, steps) float64, 0 or 1; NaN where nothing was asked.

    Raises:
        UserError: the prediction of a named attribute is NaN.
    """
    columns = []
    for rows, condition in zip(labels, wanted, strict=True):
        asked = _asked_of(rows, condition, schema)
        columns.append(torch.where(asked.any(1), met(condition, rows, schema).double(), torch.nan))
    return torch.stack(columns, 1)


def counted(setting: Setting) -> slice:
    """The steps whose results must meet their conditions: the last one.

    Of an edit that is undone it is every step, so that doing nothing is no success.
    """
    return slice(None) if setting.returns else slice(-1, None)


class AttributeAccuracy(PerSampleMetric):
    """Accuracy of what was asked over all samples, as predicted by the judge.

    ``acc_joint`` is the share of samples that meet their whole condition, and, of an edit that is undone, met that of
    every step in turn; ``acc_joint/step<k>`` is the share after step k, ``acc_joint/without_<attribute>`` the share
    that meets all besides one attribute. ``acc`` is the mean over samples of the mean score of their requested
    attributes. ``acc/<attribute>`` is the mean score of one attribute over the samples that were asked for it. The
    scores are those of :func:`attribute_scores`; conditions that leave a choice have joint figures alone.

    >>> from types import SimpleNamespace
    >>> from lcg_lightning.attributes import Attribute
    >>> from lcg_lightning.conditions import parse
    >>> metric = AttributeAccuracy()
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat")))
    >>> metric.prepare(Setting(schema, networks={"judge": "mine"}))
    >>> result = SimpleNamespace(outputs=torch.tensor([[2.0, -2.0], [-2.0, -2.0]]))  # logits
    >>> asked, index = parse("Smiling", schema), torch.arange(2)
    >>> seen = {"steps": [result], "wanted": [asked], "result": result, "asked": asked}
    >>> metric.update(SimpleNamespace(**seen, index=index, met_before=None))
    >>> {name: estimate.value for name, estimate in metric.compute().items()}
    {'acc/Smiling': 0.5, 'acc': 0.5, 'acc_joint/step1': 0.5, 'acc_joint': 0.5}
    """

    columns: Sequence[Column] = (
        Column("acc_joint", "Joint accuracy", low=0.0, high=1.0),
        Column("acc", "Accuracy", low=0.0, high=1.0),
    )
    steps = 1
    shares = True

    def applies(self, setting: Setting) -> bool:
        """If there is a judge."""
        return "judge" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the attributes, the steps and the judge."""
        self.schema, self.steps, self.ends = setting.schema, setting.steps, counted(setting)
        self.columns = tuple(replace(column, basis=setting.basis("judge")) for column in self.columns)

    @property
    def names(self) -> Sequence[str]:
        """Joint accuracy without each attribute; one name per attribute, and their mean; joint accuracy by step."""
        without, each = ([f"{kind}{name}" for name in self.schema.names] for kind in ("acc_joint/without_", "acc/"))
        return [*without, *each, "acc", *(f"acc_joint/step{k + 1}" for k in range(self.steps)), "acc_joint"]

    def measure(self, samples: Judged) -> Tensor:
        """Scores (B, 2 A + 2 + steps); NaN where nothing was asked."""
        predicted = self.schema.predict(samples.result.outputs)
        without = scores_without(predicted, samples.asked, self.schema)
        each = attribute_scores(predicted, samples.asked, self.schema)
        labels = [self.schema.predict(step.outputs) for step in samples.steps]
        joint = joint_scores(labels, samples.wanted, self.schema)
        return torch.cat([without, each, joint, joint[:, self.ends].amin(1, keepdim=True)], 1)


class MetBefore(PerSampleMetric):
    """Share of the edits that ask for nothing new, which no other figure counts: ``acc_joint/met_before``."""

    counts_all = shares = True

    def applies(self, setting: Setting) -> bool:
        """For edits, if there is a judge."""
        return setting.edits and "judge" in setting.networks

    @property
    def names(self) -> Sequence[str]:
        """A detail of joint accuracy."""
        return ["acc_joint/met_before"]

    def measure(self, samples: Judged) -> Tensor:
        """1 where the source meets what every step asks, else 0, (B, 1)."""
        assert samples.met_before is not None
        return samples.met_before[:, None].double()

"""Conditions and label rows: whether rows meet a condition, and what it asks of each sample."""

from collections.abc import Callable

import torch
from torch import Tensor

from lcg_lightning.attributes import TOLERANCE, AttributeSchema
from lcg_lightning.conditions.tree import And, Condition, Is, Not, Or, Scaled, targets
from lcg_lightning.devices import upload
from lcg_lightning.errors import UserError


def met(condition: Condition, labels: Tensor, schema: AttributeSchema) -> Tensor:
    """Whether label rows meet a condition.

    A discrete attribute must equal its target; a continuous one must be within
    :data:`~lcg_lightning.attributes.TOLERANCE` of it, as a share of its range. A scale changes nothing. A sample
    without a target of its own is free. An unknown label meets neither a value nor its negation.

    Args:
        condition: a tree; targets per sample are (B,).
        labels: (B, A) in natural units, NaN where unknown.
        schema: the attributes of the columns.

    Returns:
        (B,) bool.

    >>> from lcg_lightning.attributes import Attribute
    >>> from lcg_lightning.conditions import parse
    >>> schema = AttributeSchema((Attribute("Hat"), Attribute("Age", "continuous", low=20, high=60)))
    >>> labels = torch.tensor([[1.0, 27.0], [0.0, 33.0], [torch.nan, 30.0]])
    >>> met(parse("~Hat & Age=30", schema), labels, schema)
    tensor([False,  True, False])
    """
    return _holds(condition, True, schema.unit(labels.double()), schema)


def _holds(condition: Condition, wanted: bool, unit: Tensor, schema: AttributeSchema) -> Tensor:
    """Rows (B,) on the unit scale of which it is known that a condition holds, or that it does not."""
    match condition:
        case Is(name, value):
            attribute, column = schema[name], unit[:, schema.index(name)]
            target = torch.as_tensor(value, dtype=unit.dtype, device=unit.device)
            if attribute.kind == "continuous":
                target = (target - attribute.low) / (attribute.high - attribute.low)
            error = (column - target).abs()
            return target.isnan() | (error <= TOLERANCE if wanted else error > TOLERANCE)
        case And(terms) | Or(terms):
            parts = [_holds(term, wanted, unit, schema) for term in terms]
            every = isinstance(condition, And) == wanted
            if not parts:
                return torch.full((len(unit),), every, device=unit.device)
            return torch.stack(parts).all(0) if every else torch.stack(parts).any(0)
        case Not(term):
            return _holds(term, not wanted, unit, schema)
        case Scaled(_, term):
            return _holds(term, wanted, unit, schema)


def named(condition: Condition, schema: AttributeSchema, batch: int) -> Tensor:
    """The attributes that a condition names for each sample, (batch, A) bool on the CPU; not where its target is NaN.

    >>> from lcg_lightning.attributes import Attribute
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat"), Attribute("Beard")))
    >>> named(Or((Is("Hat"), Not(Is("Beard")))), schema, 1)
    tensor([[False,  True,  True]])
    """
    found = torch.zeros(batch, len(schema), dtype=torch.bool)
    match condition:
        case Is(name, value):
            found[:, schema.index(name)] = ~torch.as_tensor(value, device="cpu").isnan()
        case And(terms) | Or(terms):
            for term in terms:
                found |= named(term, schema, batch)
        case Not(term) | Scaled(_, term):
            found = named(term, schema, batch)
    return found


def definite(condition: Condition, schema: AttributeSchema, batch: int) -> Tensor | None:
    """The :func:`targets` (batch, A) of a conjunction of values; None if the condition leaves a choice."""
    try:
        return targets(condition, schema, batch)
    except UserError:
        return None


def take(condition: Condition, rows: Tensor) -> Condition:
    """The condition of some of the samples, by their places (N,) in the batch or a mask (B,)."""
    return _changed(condition, lambda value: value[rows.to(value.device)])


def placed(condition: Condition, device: torch.device | str) -> Condition:
    """The condition with the targets of samples on a device, so that a loop does not copy them at every step."""
    return _changed(condition, lambda value: upload(value, device))


def _changed(condition: Condition, change: Callable[[Tensor], Tensor]) -> Condition:
    """The condition with its targets per sample (B,) changed."""
    match condition:
        case Is(name, Tensor() as value):
            return Is(name, change(value))
        case Is():
            return condition
        case And(terms):
            return And(tuple(_changed(term, change) for term in terms))
        case Or(terms):
            return Or(tuple(_changed(term, change) for term in terms))
        case Not(term):
            return Not(_changed(term, change))
        case Scaled(scale, term):
            return Scaled(scale, _changed(term, change))


def per_sample(condition: Condition) -> dict[str, Tensor]:
    """The targets (B,) that differ from sample to sample, by attribute; each stands once in a condition."""
    match condition:
        case Is(name, Tensor() as value):
            return {name: value}
        case And(terms) | Or(terms):
            return {name: value for term in terms for name, value in per_sample(term).items()}
        case Not(term) | Scaled(_, term):
            return per_sample(term)
    return {}

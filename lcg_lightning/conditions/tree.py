"""Condition trees: nodes, their separate terms, and the merging of successive conditions."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema, quoted
from lcg_lightning.errors import UserError


@dataclass(frozen=True)
class Is:
    """Attribute ``name`` has ``value``."""

    name: str
    value: float | Tensor = 1.0
    """0 or 1, a class index, or a number in the attribute's own unit; or a tensor (B,), NaN where free."""


@dataclass(frozen=True)
class And:
    """All of the terms hold."""

    terms: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Or:
    """At least one of the terms holds."""

    terms: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Not:
    """The term does not hold."""

    term: "Condition"


@dataclass(frozen=True)
class Scaled:
    """The term with its log-probability multiplied by a guidance scale."""

    scale: float
    term: "Condition"


Condition = Is | And | Or | Not | Scaled


def names(condition: Condition) -> tuple[str, ...]:
    """The attributes that a condition names, each once, in order of appearance."""
    match condition:
        case Is(name):
            return (name,)
        case And(terms) | Or(terms):
            return tuple(dict.fromkeys(n for t in terms for n in names(t)))
        case Not(term) | Scaled(_, term):
            return names(term)


def conjunction(targets: Tensor, schema: AttributeSchema) -> Condition:
    """The condition that gives each sample its own target row (B, A), in natural units, NaN where free."""
    return And(tuple(Is(name, targets[:, i]) for i, name in enumerate(schema.names)))


def conjuncts(condition: Condition) -> Iterator[Condition]:
    """The separate terms of a condition.

    ``~(A | B)`` gives ``~A`` and ``~B``; ``2*(A & B)`` gives ``2*A`` and ``2*B``. A scaled term whose parts share an
    attribute stays whole, because its log-probability is not the sum of theirs.
    """
    match condition:
        case And(terms):
            for term in terms:
                yield from conjuncts(term)
        case Not(Or(terms)):
            for term in terms:
                yield from conjuncts(Not(term))
        case Not(Not(term)):
            yield from conjuncts(term)
        case Scaled(scale, term):
            parts = list(conjuncts(term))
            apart = sum(len(names(part)) for part in parts) == len(names(term))
            yield from (Scaled(scale, part) for part in parts) if apart else (condition,)
        case _:
            yield condition


def unscaled(condition: Condition) -> Iterator[Condition]:
    """The terms of :func:`conjuncts` without their scales."""
    for term in conjuncts(condition):
        if isinstance(term, Scaled):
            yield from unscaled(term.term)
        else:
            yield term


def merge(conditions: Sequence[Condition]) -> Condition:
    """The combined condition after several have been set in turn.

    A term of an earlier condition (see :func:`conjuncts`) stays until a later condition names one of its attributes,
    which removes the whole term: ``A | B`` is gone once a later condition names A. A per-sample target (B,) replaces
    the earlier target only for samples where it is not NaN.

    >>> from lcg_lightning.attributes import Attribute, AttributeSchema
    >>> from lcg_lightning.conditions import parse, to_text
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat")))
    >>> to_text(merge([parse(text, schema) for text in ("Smiling", "Hat", "~Smiling")]), schema)
    'Hat & ~Smiling'

    Raises:
        UserError: a per-sample target leaves samples free for which an earlier term is not a plain value.
    """
    kept: list[Condition] = []
    for condition in conditions:
        later = [_over(term, kept) for term in conjuncts(condition)]
        named = {name for term in later for name in names(term)}
        kept = [term for term in kept if not named.intersection(names(term))] + later
    return kept[0] if len(kept) == 1 else And(tuple(kept))


def _over(term: Condition, kept: Sequence[Condition]) -> Condition:
    """The term, with the attribute's earlier target for its free samples."""
    asked = term.term if isinstance(term, Scaled) else term
    if not (isinstance(asked, Is) and isinstance(asked.value, Tensor)):
        return term
    for old in kept:
        if asked.name not in names(old):
            continue
        if isinstance(old, Is) and isinstance(term, Is):
            return Is(asked.name, torch.where(asked.value.isnan(), old.value, asked.value))
        if asked.value.isnan().any():
            raise UserError(
                f"condition: samples without a target for {asked.name} would keep an earlier condition that is not a "
                "plain value; give every sample a target"
            )
    return term


def targets(condition: Condition, schema: AttributeSchema, batch: int) -> Tensor:
    """The target rows (batch, A) of a condition, float32 on the CPU, NaN where it asks for nothing.

    Raises:
        UserError: the condition is not a conjunction of values and negated binary values (up to De Morgan's laws), or
            asks for two values of one attribute.
    """
    rows = torch.full((batch, len(schema)), math.nan)
    for term in unscaled(condition):
        match term:
            case Is(name, value):
                wanted = torch.as_tensor(value, dtype=rows.dtype, device="cpu").expand(batch)
            case Not(Is(name, value)) if schema[name].kind == "binary":
                wanted = 1 - torch.as_tensor(value, dtype=rows.dtype, device="cpu").expand(batch)
            case Not(Is(name)):
                raise UserError(f"condition: ~{quoted(name)} does not say which value is asked for instead")
            case _:
                raise UserError("condition: it leaves a choice; only attributes joined by & ask for definite values")
        i = schema.index(name)
        before = rows[:, i]
        if (before - wanted).abs().nan_to_num().any():
            raise UserError(f"condition: it asks {name} to have two values at once")
        rows[:, i] = torch.where(wanted.isnan(), before, wanted)
    return rows


def asked(condition: Condition, schema: AttributeSchema, batch: int) -> Tensor:
    """Which attributes (batch, A) a condition asks of each sample, bool on the CPU; a NaN target asks for nothing."""
    found = torch.zeros(batch, len(schema), dtype=torch.bool)
    for term in unscaled(condition):
        if isinstance(term, Is) and isinstance(term.value, Tensor):
            found[:, schema.index(term.name)] |= ~term.value.isnan().cpu()
        else:
            found[:, [schema.index(name) for name in names(term)]] = True
    return found

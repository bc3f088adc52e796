"""The log-probability of a condition under a classifier's outputs, exact for every tree.

Attributes are independent given the outputs, so a tree that names every attribute once factorizes. If attributes are
named more than once, their values are enumerated, which leaves mutually exclusive cases that factorize:
``(A & B) | (A & C)`` has the one case ``A & (B | C)``.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions.tree import And, Condition, Is, Not, Or, Scaled, conjuncts, names, unscaled
from lcg_lightning.errors import UserError

MAX_CASES = 1024
"""Largest number of cases; conditions with more are refused."""

LOG_VARIANCES = (-6.0, 10.0)
"""Log variances of continuous heads are clamped to this range. Its lower end is a deviation of 5 % of the attribute's
range; a surer head makes gradients so steep that a sampler of few steps diverges at guidance scales above 2."""

NO_COMPLEMENT = "it has no complement, so it may not stand under ~ or |"
SCALE_PLACE = "a scale may only stand before a term of the outermost &"


def log_prob(condition: Condition, outputs: Tensor, schema: AttributeSchema, tolerance: float | None = None) -> Tensor:
    """Log-probability of a condition under a classifier's outputs.

    A binary value contributes the log sigmoid of its signed logit, a categorical value its log softmax. A continuous
    value contributes its log density, on the unit scale, under a Gaussian with the head's mean and variance.
    With a tolerance, it contributes the log-probability of an error of at most that, so that the result is at most 0.
    Continuous and per-sample targets are allowed only in the outermost &; their terms are added. Scaled terms are also
    added, each independently: ``2*A & A`` gives 3 log p(A). All other terms are evaluated jointly: ``A & A`` gives
    log p(A).

    NOT is log(1 - p), and De Morgan's laws hold to the last bit. Complements are never computed by subtraction:
    log(1 - prod p_i) is the log-sum-exp over i of log(1 - p_i) + sum_{j < i} log p_j ("the first to fail is i"), which
    keeps value and gradient exact where probabilities round to 0 or 1.

    Args:
        condition: a tree.
        outputs: classifier outputs (B, K), laid out by :meth:`AttributeSchema.head`.
        schema: the attributes.
        tolerance: largest error at which a continuous target counts as met, on the unit scale; None for densities.

    Returns:
        (B,), differentiable in the outputs, with finite gradients.

    Raises:
        UserError: an unknown attribute or value; a term without a complement under ``~`` or ``|``; a condition that
            nothing satisfies; more than :data:`MAX_CASES` cases; an attribute with a per-sample target that is named
            again.
    """
    parts, choices = [], []
    stated: dict[str, float | Tensor] = {}
    for term in conjuncts(condition):
        match term:
            case Scaled(scale, inner):
                parts.append(scale * log_prob(inner, outputs, schema, tolerance))
            case Is(name, value) if isinstance(value, Tensor) or schema[name].kind == "continuous":
                if _state(stated, schema[name].name, value):
                    parts.append(_target(schema[name], value, outputs[:, schema.head(name)], tolerance))
            case _:
                choices.append(term)
    if choices:
        cases = _cases(tuple(choices), schema)
        if again := stated.keys() & {schema[name].name for term in choices for name in names(term)}:
            raise UserError(f"condition: {min(again)} has a target per sample and is named again; merge the two")
        parts.append(_log_mass(cases, outputs, schema))
    return torch.stack(parts).sum(0) if parts else 0 * outputs[:, 0]


def refuse_impossible(condition: Condition, schema: AttributeSchema) -> None:
    """Raises a UserError if no sample can satisfy a condition, regardless of scales, or if it has too many cases."""
    choices = []
    stated: dict[str, float | Tensor] = {}
    for term in unscaled(condition):
        match term:
            case Is(name, value) if isinstance(value, Tensor) or schema[name].kind == "continuous":
                _state(stated, schema[name].name, value)
            case _:
                choices.append(term)
    _cases(tuple(choices), schema)


def _state(stated: dict[str, float | Tensor], name: str, value: float | Tensor) -> bool:
    """Records an attribute's target; returns whether it is new."""
    if name not in stated:
        stated[name] = value
        return True
    before = stated[name]
    if isinstance(before, Tensor) or isinstance(value, Tensor):
        raise UserError(f"condition: {name} has a target per sample and is named again; merge the two")
    if before != value:
        both = f"{name} cannot be {before:g} and {value:g} at once"
        raise UserError(f"condition: it asks for something impossible; {both}")
    return False


def _target(attribute: Attribute, value: float | Tensor, out: Tensor, tolerance: float | None) -> Tensor:
    """Log-probability (B,) or log density of a target under its head's outputs (B, width); 0 where NaN."""
    target = value.to(out).expand(len(out)) if isinstance(value, Tensor) else torch.full_like(out[:, 0], value)  # (B,)
    free = target.isnan()
    target = target.nan_to_num()
    if attribute.kind == "binary":
        value_log_prob = logsigmoid((2 * target - 1) * out[:, 0])
    elif attribute.kind == "categorical":
        value_log_prob = log_softmax(out, 1).gather(1, target.long()[:, None])[:, 0]
    else:
        unit = (target - attribute.low) / (attribute.high - attribute.low)
        log_variance = out[:, 1].clamp(*LOG_VARIANCES)
        if tolerance is None:
            square = (unit - out[:, 0]).square() * (-log_variance).exp()
            value_log_prob = -(square + log_variance + math.log(2 * math.pi)) / 2
        else:
            error, deviation = (unit - out[:, 0]).abs(), (log_variance / 2).exp()
            near, far = ((bound - error) / deviation for bound in (tolerance, -tolerance))
            mass = torch.special.ndtr(near) - torch.special.ndtr(far)
            value_log_prob = mass.clamp_min(torch.finfo(mass.dtype).tiny).log()
    return value_log_prob.masked_fill(free, 0)


@dataclass(frozen=True)
class _Among:
    """An attribute takes one of a set of values, which is neither empty nor complete."""

    name: str
    values: frozenset[int]


@dataclass(frozen=True)
class _Gate:
    """An AND or OR over two or more terms; each is a value or a gate of the other kind."""

    every: bool
    terms: "tuple[_Node, ...]"


_Node = bool | _Among | _Gate


def _size(attribute: Attribute) -> int:
    return max(2, len(attribute.classes))


def _node(condition: Condition, schema: AttributeSchema, holds: bool = True) -> _Node:
    """A condition or its complement, with negations pushed down to the values."""
    match condition:
        case Is(name, value):
            attribute = schema[name]
            if isinstance(value, Tensor) or attribute.kind == "continuous":
                raise UserError(f"condition: {name} has a continuous or per-sample target; {NO_COMPLEMENT}")
            if value not in range(_size(attribute)):
                raise UserError(f"condition: {name} takes 0 to {_size(attribute) - 1}, not {value:g}")
            asked = frozenset({int(value)})
            return _Among(attribute.name, asked if holds else frozenset(range(_size(attribute))) - asked)
        case Not(term):
            return _node(term, schema, not holds)
        case And(terms) | Or(terms):
            return _gate(isinstance(condition, And) == holds, (_node(t, schema, holds) for t in terms), schema)
        case Scaled():
            raise UserError(f"condition: there is a scale under ~ or |; {SCALE_PLACE}")


def _gate(every: bool, terms: Iterable[_Node], schema: AttributeSchema) -> _Node:
    """A gate over terms, simplified: no constants, no duplicates, one term per attribute."""
    found: dict[str | _Gate, _Node] = {}
    for term in terms:
        for part in term.terms if isinstance(term, _Gate) and term.every == every else (term,):
            if isinstance(part, bool):
                if part != every:
                    return part
            elif isinstance(part, _Gate):
                found[part] = part
            else:
                values = part.values
                if isinstance(before := found.get(part.name), _Among):
                    values = before.values & values if every else before.values | values
                if len(values) in (0, _size(schema[part.name])):
                    return not every
                found[part.name] = _Among(part.name, values)
    return _Gate(every, tuple(found.values())) if len(found) > 1 else next(iter(found.values()), every)


@functools.lru_cache(maxsize=64)
def _cases(terms: tuple[Condition, ...], schema: AttributeSchema) -> tuple[_Node, ...]:
    """Mutually exclusive cases in which all terms hold; each names an attribute at most once."""
    whole = _node(And(terms), schema)
    found: list[_Node] = []
    for count, case in enumerate(_split(whole, schema), 1):
        if count > MAX_CASES:
            raise UserError(
                f"condition: more than {MAX_CASES} cases of the attributes that it names more than once; name each of "
                "them once where you can"
            )
        if case is not False:
            found.append(case)
    if not found:
        named = dict.fromkeys(name for term in terms for name in names(term))
        raise UserError(f"condition: it asks for something impossible; no value of {', '.join(named)} satisfies it")
    return tuple(found)


def _split(node: _Node, schema: AttributeSchema) -> Iterator[_Node]:
    """Splits a node by the values of its most frequent attribute until each attribute is named once."""
    named, times = next(iter(Counter(_named(node)).most_common(1)), ("", 1))
    if times == 1:
        yield node
        return
    rest: dict[_Node, set[int]] = {}
    for value in range(_size(schema[named])):
        rest.setdefault(_given(node, named, value, schema), set()).add(value)
    for remaining, values in rest.items():
        given = [] if len(rest) == 1 else [_Among(named, frozenset(values))]
        for case in _split(remaining, schema):
            yield _gate(True, [*given, case], schema)


def _named(node: _Node) -> Iterator[str]:
    if isinstance(node, _Among):
        yield node.name
    elif isinstance(node, _Gate):
        for term in node.terms:
            yield from _named(term)


def _given(node: _Node, name: str, value: int, schema: AttributeSchema) -> _Node:
    """The node that remains once an attribute has a value."""
    if isinstance(node, _Gate):
        return _gate(node.every, (_given(term, name, value, schema) for term in node.terms), schema)
    return value in node.values if isinstance(node, _Among) and node.name == name else node


def _log_mass(cases: tuple[_Node, ...], outputs: Tensor, schema: AttributeSchema) -> Tensor:
    """Log of the total probability (B,) of mutually exclusive cases; each names an attribute at most once."""

    @functools.cache
    def log_p(node: _Node, holds: bool) -> Tensor:
        """Log-probability (B,) that a node holds, or that it does not."""
        if isinstance(node, bool):  # the condition always holds
            return 0 * outputs[:, 0]
        if isinstance(node, _Among):
            out = outputs[:, schema.head(node.name)]
            if schema[node.name].kind == "binary":
                return logsigmoid(out[:, 0] if (1 in node.values) == holds else -out[:, 0])
            chances = [c for k, c in enumerate(log_softmax(out, 1).unbind(1)) if (k in node.values) == holds]
            return torch.stack(chances).logsumexp(0)
        if node.every == holds:
            return torch.stack([log_p(term, holds) for term in node.terms]).sum(0)
        first = []
        before = torch.zeros_like(outputs[:, 0])  # (B,) none of the earlier terms
        for term in node.terms:
            first.append(log_p(term, holds) + before)
            before = before + log_p(term, not holds)
        return torch.stack(first).logsumexp(0)

    masses = [log_p(case, True) for case in cases]
    return torch.stack(masses).logsumexp(0) if len(masses) > 1 else masses[0]

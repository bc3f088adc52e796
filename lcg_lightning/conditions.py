"""What is asked of a sample: a tree over attributes, read from text, whose value is one log-probability.

Grammar, from loosest to tightest::

    condition   = conjunction { "|" conjunction }
    conjunction = term { "&" term }
    term        = [ number "*" ] operand          (a scale: only before terms of the outermost &)
    operand     = "~" operand | "(" condition ")" | Name [ "=" value ]

A bare ``Name`` asks a binary attribute to be 1. ``Name=value`` takes 0 or 1 (binary), a class name or index
(categorical), or a number in the attribute's own unit (continuous).

What has no complement may not stand under ``~`` or ``|``: a continuous target (its density is not a
probability), a scale, and a target that differs from sample to sample.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.errors import UserError

_NO_COMPLEMENT = "it has no complement, so it may not stand under ~ or |"
_SCALE_PLACE = "a scale may only stand before a term of the outermost &"

LOG_VARIANCE_LIMIT = 10.0
"""Log variances of continuous heads are clamped to [-10, 10]; the lower end is 0.7 % of the range."""


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
    """At least one of the terms holds, taken as independent given z_t."""

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


def log_prob(condition: Condition, outputs: Tensor, schema: AttributeSchema) -> Tensor:
    """Log-probability of a condition under a classifier's outputs, attributes being independent given them.

    Literals: log sigmoid of the signed logit; log softmax; the log density of a Gaussian with the head's own
    mean and variance on the unit scale. AND is the sum, NOT is log(1 - p), OR is the complement of an AND of
    complements, so De Morgan's laws hold to the last bit. Complements are never taken by subtraction:
    log(1 - prod p_i) is the log-sum-exp over i of log(1 - p_i) + sum_{j < i} log p_j ("the first to fail is
    i"), which keeps value and gradient exact where probabilities round to 0 or 1.

    Args:
        condition: a tree.
        outputs: classifier outputs (B, K), laid out by :meth:`AttributeSchema.head`.
        schema: the attributes.

    Returns:
        (B,), differentiable in the outputs, with finite gradients.

    Raises:
        UserError: unknown attribute, or something without a complement under ``~`` or ``|``.
    """
    match condition:
        case Is(name, value) if schema[name].kind == "continuous" or isinstance(value, Tensor):
            return _target(schema[name], value, outputs[:, schema.head(name)])
        case And(terms):
            return torch.stack([log_prob(t, outputs, schema) for t in terms]).sum(0)
        case Scaled(scale, term):
            return scale * log_prob(term, outputs, schema)
        case _:
            return _pair(condition, outputs, schema)[0]


def _target(attribute: Attribute, value: float | Tensor, out: Tensor) -> Tensor:
    """Log-probability (B,) or log density of a target under its head's outputs (B, width); 0 where NaN."""
    target = torch.as_tensor(value, dtype=out.dtype, device=out.device).expand(len(out))  # (B,)
    free = target.isnan()
    target = target.nan_to_num()
    if attribute.kind == "binary":
        value_log_prob = logsigmoid((2 * target - 1) * out[:, 0])
    elif attribute.kind == "categorical":
        value_log_prob = log_softmax(out, 1).gather(1, target.long()[:, None])[:, 0]
    else:
        unit = (target - attribute.low) / (attribute.high - attribute.low)
        log_variance = out[:, 1].clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        square = (unit - out[:, 0]).square() * (-log_variance).exp()
        value_log_prob = -(square + log_variance + math.log(2 * math.pi)) / 2
    return value_log_prob.masked_fill(free, 0)


def _pair(condition: Condition, outputs: Tensor, schema: AttributeSchema) -> tuple[Tensor, Tensor]:
    """(log p, log(1 - p)), each (B,)."""
    match condition:
        case Is(name, value):
            attribute, out = schema[name], outputs[:, schema.head(name)]
            if isinstance(value, Tensor) or attribute.kind == "continuous":
                raise UserError(f"condition: {name} has a continuous or per-sample target; {_NO_COMPLEMENT}")
            if attribute.kind == "binary":
                yes, no = logsigmoid(out[:, 0]), logsigmoid(-out[:, 0])
                return (yes, no) if value else (no, yes)
            log_p = log_softmax(out, 1)
            others = [k for k in range(attribute.num_outputs) if k != int(value)]
            return log_p[:, int(value)], log_p[:, others].logsumexp(1)
        case Not(term):
            log_p, log_not = _pair(term, outputs, schema)
            return log_not, log_p
        case And(terms):
            pairs = [_pair(t, outputs, schema) for t in terms]
            return _all([p for p, _ in pairs], [q for _, q in pairs])
        case Or(terms):
            pairs = [_pair(t, outputs, schema) for t in terms]
            none, some = _all([q for _, q in pairs], [p for p, _ in pairs])
            return some, none
        case Scaled():
            raise UserError(f"condition: there is a scale under ~ or |; {_SCALE_PLACE}")


def _all(log_p: list[Tensor], log_not: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(log prod p_i, log(1 - prod p_i)) from the terms' log p_i and log(1 - p_i), each (B,)."""
    before = torch.zeros_like(log_p[0])
    first_failure = []
    for p, q in zip(log_p, log_not, strict=True):
        first_failure.append(q + before)
        before = before + p
    return before, torch.stack(first_failure).logsumexp(0)


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
    """The condition that asks each sample for its own label row (B, A) in natural units, NaN where free."""
    return And(tuple(Is(name, targets[:, i]) for i, name in enumerate(schema.names)))


def merge(conditions: Sequence[Condition]) -> Condition:
    """What conditions that are set one after another ask for together.

    A term of an earlier condition's outermost conjunction stays until a later condition names one of its attributes;
    then the later one replaces it. A target per sample, (B,), replaces only the samples that it asks something of.

    >>> from lcg_lightning.attributes import Attribute, AttributeSchema
    >>> schema = AttributeSchema((Attribute("Smiling"), Attribute("Hat")))
    >>> to_text(merge([parse(text, schema) for text in ("Smiling", "Hat", "~Smiling")]), schema)
    'Hat & ~Smiling'
    """
    kept: list[Condition] = []
    for condition in conditions:
        later = [_over(term, kept) for term in _terms(condition)]
        named = {name for term in later for name in names(term)}
        kept = [term for term in kept if not named.intersection(names(term))] + later
    return kept[0] if len(kept) == 1 else And(tuple(kept))


def _terms(condition: Condition) -> Iterator[Condition]:
    """The terms of the outermost conjunction."""
    if isinstance(condition, And):
        for term in condition.terms:
            yield from _terms(term)
    else:
        yield condition


def _over(term: Condition, kept: Sequence[Condition]) -> Condition:
    """The term, whose free samples keep the earlier target of the same attribute."""
    if isinstance(term, Is) and isinstance(term.value, Tensor):
        for old in kept:
            if isinstance(old, Is) and old.name == term.name:
                return Is(term.name, torch.where(term.value.isnan(), old.value, term.value))
    return term


def targets(condition: Condition, schema: AttributeSchema, batch: int) -> Tensor:
    """The label rows (batch, A) float32 on the CPU that a condition asks for, NaN where it asks nothing.

    Raises:
        UserError: the condition is not a conjunction of literals and negated binary literals (up to De
            Morgan's laws), or asks two values of one attribute.
    """
    rows = torch.full((batch, len(schema)), math.nan)
    for literal, negated in _literals(condition):
        i = schema.index(literal.name)
        value = torch.as_tensor(literal.value, dtype=rows.dtype, device="cpu").expand(batch)
        if negated:
            if schema[literal.name].kind != "binary":
                raise UserError(f"condition: ~{literal.name} does not say which value is asked for instead")
            value = 1 - value
        asked = rows[:, i]
        if (asked - value).abs().nan_to_num().any():
            raise UserError(f"condition: it asks {literal.name} to have two values at once")
        rows[:, i] = torch.where(value.isnan(), asked, value)
    return rows


def _literals(condition: Condition, negated: bool = False) -> Iterator[tuple[Is, bool]]:
    """The literals of a conjunction, each with whether it is negated."""
    match condition:
        case Is():
            yield condition, negated
        case Not(term):
            yield from _literals(term, not negated)
        case Scaled(_, term):
            yield from _literals(term, negated)
        case And(terms) if not negated:
            for term in terms:
                yield from _literals(term)
        case Or(terms) if negated:
            for term in terms:
                yield from _literals(term, True)
        case _:
            raise UserError("condition: it leaves a choice; only attributes joined by & ask for definite values")


def to_text(condition: Condition, schema: AttributeSchema) -> str:
    """The text that :func:`parse` reads back as the same tree; per-sample targets are shown as ``Name=?``."""
    match condition:
        case Is(name, Tensor()):
            return f"{name}=?"
        case Is(name, value):
            attribute = schema[name]
            if attribute.kind == "categorical":
                return f"{name}={attribute.classes[int(value)]}"
            if attribute.kind == "binary" and value == 1:
                return name
            return f"{name}={float(value)!r}".removesuffix(".0")
        case And(terms):
            return " & ".join(_enclosed(t, schema, And, Or) for t in terms)
        case Or(terms):
            return " | ".join(_enclosed(t, schema, Or) for t in terms)
        case Not(term):
            return f"~{_enclosed(term, schema, And, Or, Scaled)}"
        case Scaled(scale, term):
            return f"{scale:.15g}*{_enclosed(term, schema, And, Or, Scaled)}"


def _enclosed(condition: Condition, schema: AttributeSchema, *kinds: type) -> str:
    text = to_text(condition, schema)
    return f"({text})" if isinstance(condition, kinds) else text


def parse(text: str, schema: AttributeSchema) -> Condition:
    """Reads a condition.

    Args:
        text: as in the grammar above, e.g. ``"2*Smiling & ~(Hat | Bald) & yaw=0.3"``.
        schema: the attributes that may be named; upper and lower case are not told apart.

    Raises:
        UserError: one line that points at the column, counted from 1.
    """
    return _Parser(text, schema).parse()


class _Parser:
    """Recursive descent over the tokens of one text; each method reads one rule of the grammar."""

    def __init__(self, text: str, schema: AttributeSchema) -> None:
        self.text = text
        self.schema = schema
        found = re.finditer(r"[()&|~=*]|[^\s()&|~=*]+", text)
        self.tokens = [(m.start() + 1, m.group()) for m in found]
        self.position = 0
        self.depth = 0
        self.refusals: list[tuple[int, str]] = []  # column and complaint of all that may not be under ~ or |

    def parse(self) -> Condition:
        condition = self.condition()
        if self.peek():
            self.fail("expected '&' or '|'")
        return condition

    def condition(self) -> Condition:
        before = len(self.refusals)
        terms = [self.conjunction()]
        while self.take("|"):
            terms.append(self.conjunction())
        if len(terms) == 1:
            return terms[0]
        self.refuse_since(before)
        return Or(tuple(terms))

    def conjunction(self) -> Condition:
        terms = [self.term()]
        while self.take("&"):
            terms.append(self.term())
        return And(tuple(terms)) if len(terms) > 1 else terms[0]

    def term(self) -> Condition:
        if self.depth or self.peek(1) != "*":
            return self.operand()
        column, word = self.column, self.word("a scale")
        self.take("*")
        scale = _number(word)
        if not 0 <= scale < math.inf:
            self.fail(f"{word!r} is not a scale; give a number of 0 or more", column)
        self.refusals.append((column, _SCALE_PLACE))
        return Scaled(scale, self.operand())

    def operand(self) -> Condition:
        if self.take("~"):
            before = len(self.refusals)
            term = self.operand()
            self.refuse_since(before)
            return Not(term)
        if self.take("("):
            self.depth += 1
            inner = self.condition()
            if not self.take(")"):
                self.fail("expected ')'")
            self.depth -= 1
            return inner
        return self.literal()

    def literal(self) -> Is:
        column, name = self.column, self.word("an attribute")
        if self.peek() == "*":
            self.fail(_SCALE_PLACE, column)
        try:
            attribute = self.schema[name]
        except UserError as error:
            self.fail(str(error), column)
        if attribute.kind == "continuous":
            self.refusals.append((column, f"{attribute.name} has a continuous target; {_NO_COMPLEMENT}"))
        if self.take("="):
            column = self.column
            return Is(attribute.name, self.value(attribute, column, self.word("a value")))
        if attribute.kind != "binary":
            example = attribute.classes[0] if attribute.classes else f"{(attribute.low + attribute.high) / 2:g}"
            self.fail(f"{attribute.name} needs a value, such as {attribute.name}={example}", column)
        return Is(attribute.name)

    def value(self, attribute: Attribute, column: int, word: str) -> float:
        number = _number(word)
        if attribute.kind == "continuous":
            valid = attribute.low <= number <= attribute.high
            wanted = f"a number from {attribute.low:g} to {attribute.high:g}"
        elif attribute.kind == "binary":
            valid, wanted = number in (0, 1), "0 or 1"
        else:
            folded = [c.casefold() for c in attribute.classes]
            if word.casefold() in folded:
                return float(folded.index(word.casefold()))
            valid, wanted = number in range(len(folded)), f"one of {', '.join(attribute.classes)}"
        if not valid:
            self.fail(f"{attribute.name} takes {wanted}, not {word!r}", column)
        return number

    def peek(self, ahead: int = 0) -> str:
        """A coming token; empty past the end."""
        i = self.position + ahead
        return self.tokens[i][1] if i < len(self.tokens) else ""

    @property
    def column(self) -> int:
        """Column of the coming token, counted from 1; one past the text at its end."""
        return self.tokens[self.position][0] if self.peek() else len(self.text) + 1

    def take(self, symbol: str) -> bool:
        """Steps over the coming token if it is this symbol."""
        taken = self.peek() == symbol
        self.position += taken
        return taken

    def word(self, wanted: str) -> str:
        """Steps over the coming token, which must be a name or a number."""
        word = self.peek()
        if not word or word in "()&|~=*":
            self.fail(f"expected {wanted}")
        self.position += 1
        return word

    def refuse_since(self, before: int) -> None:
        """Fails at the first thing met since then that may not stand under ~ or |."""
        for column, complaint in self.refusals[before:]:
            self.fail(complaint, column)

    def fail(self, complaint: str, column: int | None = None) -> NoReturn:
        found = "" if column or not self.peek() else f", found {self.peek()!r}"
        raise UserError(f'condition "{self.text}": column {column or self.column}: {complaint}{found}')


def _number(word: str) -> float:
    """The number that a word writes, NaN if none."""
    try:
        return float(word)
    except ValueError:
        return math.nan

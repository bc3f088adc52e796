"""The language of conditions.

Grammar, from loosest to tightest::

    condition   = conjunction { "|" conjunction }
    conjunction = term { "&" term }
    term        = [ number "*" ] operand          (a scale: only before terms of the outermost &)
    operand     = "~" operand | "(" condition ")" | Name [ "=" value ]

A name or class with spaces or any of ``()&|~=*`` stands in double quotes. A bare ``Name`` asks a binary attribute
to be 1. ``Name=value`` takes 0 or 1 (binary), a class name or index (categorical), or a number in the attribute's own
unit (continuous).

Terms without a complement are not allowed under ``~`` or ``|``: continuous targets (a density is not a probability),
scales, and per-sample targets.
"""

import math
import re
from typing import NoReturn

from torch import Tensor

from lcg_lightning.attributes import WORD, Attribute, AttributeSchema, quoted
from lcg_lightning.conditions.probability import NO_COMPLEMENT, SCALE_PLACE, refuse_impossible
from lcg_lightning.conditions.tree import And, Condition, Is, Not, Or, Scaled
from lcg_lightning.errors import UserError

TOKEN = rf'"[^"]*"?|[()&|~=*]|{WORD}'
"""What a text is read in: names, in quotes or not, numbers and symbols, as a regular expression."""
MAX_DEPTH = 50
"""Deepest nesting of parentheses and negations; deeper texts are refused."""


class ConditionError(UserError):
    """A text that is not a condition; the message shows the text, shortened, before the complaint."""

    complaint: str = ""
    column: int | None = None
    """Where the complaint begins, counted from 1; None if it is about the whole."""


def to_text(condition: Condition, schema: AttributeSchema) -> str:
    """The text that :func:`parse` reads back as the same tree; per-sample targets are shown as ``Name=?``."""
    match condition:
        case Is(name, Tensor()):
            return f"{quoted(name)}=?"
        case Is(name, value):
            attribute = schema[name]
            if attribute.kind == "categorical":
                return f"{quoted(name)}={quoted(attribute.classes[int(value)])}"
            if attribute.kind == "binary" and value == 1:
                return quoted(name)
            return f"{quoted(name)}={_figure(float(value))}"
        case And(terms):
            return " & ".join(_enclosed(t, schema, And, Or) for t in terms)
        case Or(terms):
            return " | ".join(_enclosed(t, schema, Or) for t in terms)
        case Not(term):
            return f"~{_enclosed(term, schema, And, Or, Scaled)}"
        case Scaled(scale, term):
            return f"{_figure(scale)}*{_enclosed(term, schema, And, Or, Scaled)}"


def _figure(number: float) -> str:
    return repr(number).removesuffix(".0")


def _enclosed(condition: Condition, schema: AttributeSchema, *kinds: type) -> str:
    text = to_text(condition, schema)
    return f"({text})" if isinstance(condition, kinds) else text


def parse(text: str, schema: AttributeSchema) -> Condition:
    """Reads a condition.

    Args:
        text: as in the grammar above, e.g. ``"2*Smiling & ~(Hat | Bald) & yaw=0.3"``.
        schema: the attributes that may be named; case is ignored.

    Raises:
        ConditionError: a syntax error (the message gives the column, counted from 1), a condition that nothing
            satisfies, such as ``A & ~A`` or two numbers for one attribute, or a condition with too many cases.
    """
    condition = _Parser(text, schema).parse()
    try:
        refuse_impossible(condition, schema)
    except UserError as error:
        raise _refusal(text, str(error).removeprefix("condition: ")) from None
    return condition


class _Parser:
    """Recursive descent over the tokens of one text; each method reads one rule of the grammar."""

    def __init__(self, text: str, schema: AttributeSchema) -> None:
        self.text = text
        self.schema = schema
        found = re.finditer(TOKEN, text)
        self.tokens = [(m.start() + 1, m.group()) for m in found]
        self.position = 0
        self.depth = 0  # of parentheses
        self.negations = 0
        self.refusals: list[tuple[int, str]] = []  # (column, complaint) of terms not allowed under ~ or |

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
        self.refusals.append((column, SCALE_PLACE))
        return Scaled(scale, self.operand())

    def operand(self) -> Condition:
        if self.depth + self.negations > MAX_DEPTH:
            self.fail(f"parentheses and ~ are nested more than {MAX_DEPTH} deep; write it flatter")
        if self.take("~"):
            before = len(self.refusals)
            self.negations += 1
            term = self.operand()
            self.negations -= 1
            self.refuse_since(before)
            return Not(term)
        if self.take("("):
            self.depth += 1
            inner = self.condition()
            if not self.take(")"):
                self.fail("expected ')'")
            self.depth -= 1
            return inner
        return self.value()

    def value(self) -> Is:
        column, name = self.column, self.word("an attribute")
        if self.peek() == "*":
            self.fail(SCALE_PLACE, column)
        try:
            attribute = self.schema[name]
        except UserError as error:
            self.fail(str(error), column)
        if attribute.kind == "continuous":
            self.refusals.append((column, f"{attribute.name} has a continuous target; {NO_COMPLEMENT}"))
        if self.take("="):
            column = self.column
            return Is(attribute.name, self.number(attribute, column, self.word("a value")))
        if attribute.kind != "binary":
            middle = (attribute.low + attribute.high) / 2
            example = quoted(attribute.classes[0]) if attribute.classes else f"{middle:g}"
            self.fail(f"{attribute.name} needs a value, such as {quoted(attribute.name)}={example}", column)
        return Is(attribute.name)

    def number(self, attribute: Attribute, column: int, word: str) -> float:
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
            valid, wanted = number in range(len(folded)), f"one of {', '.join(map(quoted, attribute.classes))}"
        if not valid:
            self.fail(f"{attribute.name} takes {wanted}, not {word!r}", column)
        return number

    def peek(self, ahead: int = 0) -> str:
        """An upcoming token; empty past the end."""
        i = self.position + ahead
        return self.tokens[i][1] if i < len(self.tokens) else ""

    @property
    def column(self) -> int:
        """Column of the next token, counted from 1; one past the text at its end."""
        return self.tokens[self.position][0] if self.peek() else len(self.text) + 1

    def take(self, symbol: str) -> bool:
        """Consumes the next token if it is this symbol."""
        taken = self.peek() == symbol
        self.position += taken
        return taken

    def word(self, wanted: str) -> str:
        """Consumes the next token, which must be a name or a number; gives it without quotes."""
        word = self.peek()
        if not word or word in "()&|~=*":
            self.fail(f"expected {wanted}")
        if word.startswith('"') and word.count('"') == 1:
            self.fail("the quote is not closed", self.column)
        self.position += 1
        return word.strip('"')

    def refuse_since(self, before: int) -> None:
        """Fails at the first term since ``before`` that is not allowed under ~ or |."""
        for column, complaint in self.refusals[before:]:
            self.fail(complaint, column)

    def fail(self, complaint: str, column: int | None = None) -> NoReturn:
        found = "" if column or not self.peek() else f", found {self.peek()!r}"
        raise _refusal(self.text, f"{complaint}{found}", column or self.column)


def _refusal(text: str, complaint: str, column: int | None = None) -> ConditionError:
    line = re.sub(r"\s", " ", text)
    shown = line if len(line) <= 200 else line[:199] + "…"
    place = "" if column is None else f"column {column}: "
    error = ConditionError(f'condition "{shown}": {place}{complaint}')
    error.complaint, error.column = complaint, column
    return error


def _number(word: str) -> float:
    """The number that a word spells, NaN if none."""
    try:
        return float(word)
    except ValueError:
        return math.nan

"""Attributes, and their layout in label rows and classifier outputs."""

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from lcg_lightning.devices import upload
from lcg_lightning.errors import UserError

TOLERANCE = 0.1
"""Largest error, as a share of the range, at which a continuous attribute still meets its target."""

WORD = r'[^\s()&|~=*"]+'
"""A name that a condition holds without quotes, as a regular expression."""
_QUOTABLE = r'[^"\x00-\x1f\x7f-\x9f\u2028\u2029]+'

Kind = Literal["binary", "categorical", "continuous"]


@dataclass(frozen=True)
class Attribute:
    """One attribute of an image.

    Its label is a float: 0 or 1 for ``binary``, a class index for ``categorical``, a number in the attribute's own unit
    within [low, high] for ``continuous``. An unknown label is NaN.

    Raises:
        UserError: an unknown kind, fewer than two classes, two classes with the same name, low not below high, or a
            name, of the attribute or of a class, that is empty or holds a double quote or a control character.
    """

    name: str
    kind: Kind = "binary"
    classes: tuple[str, ...] = ()
    """Names of a categorical attribute's classes, in label order."""
    low: float = 0.0
    """Least value of a continuous attribute, in its own unit."""
    high: float = 1.0
    """Its greatest value."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        for name in (self.name, *self.classes):
            if not re.fullmatch(_QUOTABLE, name):
                raise UserError(
                    f"attribute {self.name!r}: the name {name!r} is empty or holds a double quote or a control "
                    "character; give another"
                )
        if self.kind not in get_args(Kind):
            raise UserError(f"attribute {self.name}: kind {self.kind!r}; use {', '.join(get_args(Kind))}")
        if twice := _repeated(self.classes):
            raise UserError(f"attribute {self.name}: class {twice} is named twice; case is ignored")
        if self.kind == "categorical" and len(self.classes) < 2:
            raise UserError(f"attribute {self.name}: a categorical attribute needs two or more classes")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(f"attribute {self.name}: low {self.low} must be below high {self.high}")

    @property
    def num_outputs(self) -> int:
        """Width of its classifier head: one logit, one logit per class, or (mean, log variance)."""
        return {"binary": 1, "categorical": len(self.classes), "continuous": 2}[self.kind]


@dataclass(frozen=True)
class AttributeSchema:
    """An ordered set of attributes: the columns of a label row (A,) and the heads of a classifier (K,).

    Raises:
        UserError: two attributes have the same name, ignoring case.
    """

    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", tuple(self.attributes))
        if twice := _repeated(self.names):
            raise UserError(f"attribute {twice} is named twice; case is ignored")

    def __len__(self) -> int:
        return len(self.attributes)

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.attributes)

    def __getitem__(self, name: str) -> Attribute:
        return self.attributes[self.index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names in column order."""
        return tuple(a.name for a in self.attributes)

    @property
    def num_outputs(self) -> int:
        """Total width K of the classifier heads."""
        return sum(a.num_outputs for a in self.attributes)

    def index(self, name: str) -> int:
        """Column of an attribute; case is ignored.

        Raises:
            UserError: no attribute has that name; the message names the nearest one.
        """
        folded = [n.casefold() for n in self.names]
        if name.casefold() in folded:
            return folded.index(name.casefold())
        near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.0)
        hint = f"; did you mean {quoted(self.names[folded.index(near[0])])}?" if near else ""
        raise UserError(f"unknown attribute {name!r}{hint} (known: {', '.join(map(quoted, self.names))})")

    def head(self, name: str) -> slice:
        """The slice of an output row (K,) that holds an attribute's outputs."""
        i = self.index(name)
        start = sum(a.num_outputs for a in self.attributes[:i])
        return slice(start, start + self.attributes[i].num_outputs)

    def unit(self, labels: Tensor) -> Tensor:
        """Labels (..., A) with continuous columns mapped from [low, high] to [0, 1], the scale heads predict."""
        low, span = self._affine(labels)
        return (labels - low) / span

    def natural(self, labels: Tensor) -> Tensor:
        """The inverse of :meth:`unit`."""
        low, span = self._affine(labels)
        return labels * span + low

    def met(self, labels: Tensor, targets: Tensor) -> Tensor:
        """Whether labels (..., A) meet targets (..., A), bool; a NaN target asks for nothing.

        Discrete attributes must be equal, continuous ones within :data:`TOLERANCE`; an unknown label meets no target.
        """
        return _met(self.unit(labels.double()), self.unit(targets.double()))

    def misses(self, labels: Tensor, targets: Tensor) -> Tensor:
        """For each target row (B, A), how many values each label row (N, A) misses by :meth:`met`: (B, N) int16."""
        columns, wanted = self.unit(labels.double()).T.contiguous(), self.unit(targets.double()).T
        found = torch.zeros(len(targets), len(labels), dtype=torch.int16, device=labels.device)
        for column, value in zip(columns, wanted, strict=True):
            if not value.isnan().all():
                found += ~_met(column, value[:, None])
        return found

    def _affine(self, like: Tensor) -> tuple[Tensor, Tensor]:
        continuous = [a.kind == "continuous" for a in self.attributes]
        low = [a.low if c else 0.0 for a, c in zip(self.attributes, continuous, strict=True)]
        span = [a.high - a.low if c else 1.0 for a, c in zip(self.attributes, continuous, strict=True)]
        both = upload(torch.tensor([low, span], dtype=like.dtype), like.device)
        return both[0], both[1]

    def predict(self, outputs: Tensor) -> Tensor:
        """The most likely label rows (B, A), in natural units, for classifier outputs (B, K)."""
        columns = []
        for a in self.attributes:
            out = outputs[:, self.head(a.name)]
            if a.kind == "binary":
                columns.append((out[:, 0] > 0).to(outputs.dtype))
            elif a.kind == "categorical":
                columns.append(out.argmax(1).to(outputs.dtype))
            else:
                columns.append(out[:, 0])
        return self.natural(torch.stack(columns, 1))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain lists and dicts, as kept in stores and checkpoints."""
        return [{**asdict(a), "classes": list(a.classes)} for a in self.attributes]

    @classmethod
    def from_json(cls, data: Sequence[dict[str, Any]]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            UserError: the data does not describe attributes, or describes invalid ones.
        """
        try:
            return cls(tuple(Attribute(**d) for d in data))
        except TypeError as error:
            raise UserError(f"attributes: not a list of attributes with name and kind ({error})") from error


def quoted(name: str) -> str:
    """The name of an attribute or class as a condition holds it, in double quotes where it needs them.

    >>> quoted("Hat"), quoted("age (years)")
    ('Hat', '"age (years)"')
    """
    return name if re.fullmatch(WORD, name) else f'"{name}"'


def _met(labels: Tensor, targets: Tensor) -> Tensor:
    return targets.isnan() | ((labels - targets).abs_() <= TOLERANCE)


def _repeated(names: Sequence[str]) -> str | None:
    """The first name that repeats an earlier one, ignoring case."""
    folded = [name.casefold() for name in names]
    return next((name for i, name in enumerate(names) if folded[i] in folded[:i]), None)

"""Tasks: what is asked of every sample, derived from its index and the labels of a held-out row."""

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import And, Condition, Is, definite, parse, to_text
from lcg_lightning.errors import UserError

MOST_SUBSETS = 1_000_000
"""Largest number of attribute subsets in :class:`Conditional`; they are kept in memory."""


class Task(ABC):
    """The conditions of an evaluation, the same for every method.

    Sample i belongs to row i of the evaluated split; its conditions depend only on i and that row. Samples may ask for
    different values through targets per sample, and for different trees through :meth:`kinds`.
    """

    name: str
    edits = False
    """Whether the method edits a source, or generates from noise."""
    sampled = False
    """Whether sources are drawn from the generator's own distribution, instead of the split's rows. Their labels are
    the judge's."""
    returns = False
    """Whether the last step of an edit asks for what the source was."""
    matches_data = False
    """Whether a perfect method's images follow the data, so that a Fréchet distance is meaningful."""

    def __init__(self, **config: Any) -> None:
        self.config = config

    def kinds(self, index: Tensor) -> Tensor:
        """A number (B,) int64 for the trees that each sample asks for; by default all ask for the same.

        Args:
            index: global sample indices (B,).
        """
        return torch.zeros_like(index)

    @abstractmethod
    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Condition]:
        """The condition of each step, one step for generation.

        Args:
            labels: label rows (B, A) of samples of one kind, natural units, NaN where unknown.
            index: their global sample indices (B,).
            schema: the attributes.

        Returns:
            Conditions whose targets per sample are (B,), NaN = not asked; as many for every kind.
        """


def asking(rows: Tensor, schema: AttributeSchema) -> Condition:
    """The condition that gives each sample its own target row (B, A), natural units, NaN = not asked."""
    asked = (~rows.isnan()).any(0).tolist()
    return And(tuple(Is(name, rows[:, i]) for i, name in enumerate(schema.names) if asked[i]))


class Conditional(Task):
    """Asks each sample for some of its row's attributes, so targets follow the joint distribution of the labels.

    Args:
        ask: number of attributes at once; sample i asks for the i-th subset of that size, cyclically.
        attributes: the attributes to choose from; all by default.
        name: in records and tables; ``conditional-<ask>`` by default.
    """

    matches_data = True

    def __init__(self, ask: int = 1, attributes: list[str] | None = None, name: str | None = None) -> None:
        self.name = name or f"conditional-{ask}"
        super().__init__(ask=ask, attributes=attributes, name=name)
        self.ask, self.attributes = ask, attributes

    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Condition]:
        """One step: the row's labels of the chosen attributes."""
        columns = [schema.index(name) for name in self.attributes or schema.names]
        if not 1 <= self.ask <= len(columns):
            raise UserError(f"task {self.name}: it asks for {self.ask} of {len(columns)} attributes")
        if (count := math.comb(len(columns), self.ask)) > MOST_SUBSETS:
            raise UserError(
                f"task {self.name}: {len(columns)} attributes have {count} subsets of {self.ask}; ask for fewer at "
                f"once, or name fewer attributes (at most {MOST_SUBSETS} subsets)"
            )
        subsets = _subsets(tuple(columns), self.ask)
        turn = subsets[index.cpu() % len(subsets)].to(labels.device)
        asked = torch.zeros_like(labels, dtype=torch.bool).scatter_(1, turn, True)
        return [asking(labels.masked_fill(~asked, torch.nan), schema)]


@lru_cache(maxsize=1)
def _subsets(columns: tuple[int, ...], size: int) -> Tensor:
    """All subsets (S, size) of some columns, in lexicographic order."""
    return torch.tensor(list(combinations(columns, size)))


class Composed(Task):
    """Asks for given conditions: sample i for the i-th of them, cyclically.

    Args:
        name: in records and tables.
        conditions: any conditions, such as "Beard & Hat & Smiling" or "~(Smiling | Eyeglasses)".
    """

    def __init__(self, name: str, conditions: list[str]) -> None:
        super().__init__(name=name, conditions=conditions)
        if not conditions:
            raise UserError(f"task {name}: no conditions; give at least one")
        self.name, self.conditions = name, conditions

    def kinds(self, index: Tensor) -> Tensor:
        """The number of the sample's condition."""
        return index % len(self.conditions)

    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Condition]:
        """One step: the condition of these samples."""
        return [parse(self.conditions[int(index[0]) % len(self.conditions)], schema)]


class Editing(Task):
    """Edits each source, one attribute after another, to the opposite of its label.

    A binary attribute is flipped. A continuous one is mirrored about the middle of its range.

    Args:
        attributes: binary or continuous attributes, in the order of the edits.
        sampled: edit sources that the generator draws, instead of the split's rows.
        name: in records and tables.
    """

    edits = True

    def __init__(self, attributes: list[str], sampled: bool = False, name: str = "editing") -> None:
        super().__init__(attributes=attributes, sampled=sampled, name=name)
        if not attributes:
            raise UserError(f"task {name}: no attributes; give at least one")
        self.attributes, self.sampled, self.name = attributes, sampled, name

    def turns(self, index: Tensor) -> Tensor:
        """Which of the attributes each step edits, (steps, B) int64."""
        return torch.arange(len(self.attributes))[:, None].expand(-1, len(index))

    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Condition]:
        """One step per attribute."""
        return [asking(rows, schema) for rows in self._opposites(labels, index, schema)]

    def _opposites(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Tensor]:
        """Target rows (B, A) of each step; NaN = not asked."""
        columns, sums = [], []
        for name in self.attributes:
            attribute = schema[name]
            if attribute.kind == "categorical":
                raise UserError(f"task {self.name}: {name} is categorical, it has no opposite; leave it out")
            columns.append(schema.index(name))
            sums.append(1.0 if attribute.kind == "binary" else attribute.low + attribute.high)
        opposite = labels.new_tensor(sums) - labels[:, columns]  # (B, attributes)
        rows = []
        for turn in self.turns(index.cpu()):
            turn = turn.to(labels.device)[:, None]
            column = torch.tensor(columns, device=labels.device)[turn]
            row = torch.full_like(labels, torch.nan)
            rows.append(row.scatter_(1, column, opposite.gather(1, turn)))
        return rows


class RandomOrder(Editing):
    """Like :class:`Editing`, in an order of its own for each sample, which depends on its index alone."""

    def turns(self, index: Tensor) -> Tensor:
        """A permutation of the attributes for each sample."""
        count = len(self.attributes)
        orders = [np.random.default_rng(i).permutation(count) for i in index.tolist()]
        return torch.tensor(np.array(orders, dtype=np.int64).reshape(-1, count)).T


class SingleEdit(Editing):
    """Edits one attribute of each source to the opposite of its label; sample i takes the i-th, cyclically."""

    def turns(self, index: Tensor) -> Tensor:
        """The sample's attribute."""
        return (index % len(self.attributes))[None]


class Undo(SingleEdit):
    """Like :class:`SingleEdit`, then asks for the source's label again."""

    returns = True

    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Condition]:
        """Two steps: the edit and its reverse."""
        (there,) = self._opposites(labels, index, schema)
        return [asking(rows, schema) for rows in (there, torch.where(there.isnan(), there, labels))]


def captions(condition: Condition, schema: AttributeSchema, batch: int) -> list[str]:
    """A short text of what each sample of a batch is asked for, such as "Smiling, no Hat, Age 44"."""
    rows = definite(condition, schema, batch)
    return [to_text(condition, schema)] * batch if rows is None else [_caption(row, schema) for row in rows]


def _caption(target: Tensor, schema: AttributeSchema) -> str:
    """Short text of one target row (A,), such as "Smiling, no Hat, Age 44"."""
    words = []
    for value, attribute in zip(target.tolist(), schema, strict=True):
        if value != value:
            continue
        if attribute.kind == "binary":
            words.append(attribute.name if value else f"no {attribute.name}")
        elif attribute.kind == "categorical":
            words.append(attribute.classes[int(value)])
        else:
            words.append(f"{attribute.name} {value:.3g}")
    return ", ".join(words)

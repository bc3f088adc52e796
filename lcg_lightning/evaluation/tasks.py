"""Tasks: targets for every sample, derived from the labels of held-out rows."""

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import parse, targets
from lcg_lightning.errors import UserError

MOST_SUBSETS = 1_000_000
"""Largest number of attribute subsets in :class:`Conditional`; they are kept in memory."""


class Task(ABC):
    """The targets of an evaluation, the same for every method.

    Sample i belongs to row i of the store's test split; its targets depend only on i and that row.
    """

    name: str
    edits = False
    """Whether the method edits the row's own latent, or generates from noise."""
    matches_data = False
    """Whether a perfect method's images follow the data, so that a Fréchet distance is meaningful."""

    def __init__(self, **config: Any) -> None:
        self.config = config

    @abstractmethod
    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Tensor]:
        """Targets of each step, one step for generation.

        Args:
            labels: label rows (B, A) of the samples, natural units.
            index: global sample indices (B,).
            schema: the attributes.

        Returns:
            One (B, A) tensor per step, natural units, NaN = not asked.
        """


class Conditional(Task):
    """Asks each sample for some of its row's attributes, so targets follow the joint distribution of the labels.

    Args:
        ask: number of attributes at once; sample i asks for the i-th subset of that size, cyclically.
        attributes: the attributes to choose from; all by default.
    """

    matches_data = True

    def __init__(self, ask: int = 1, attributes: list[str] | None = None) -> None:
        super().__init__(ask=ask, attributes=attributes)
        self.ask, self.attributes = ask, attributes
        self.name = f"conditional-{ask}"

    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Tensor]:
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
        return [labels.masked_fill(~asked, torch.nan)]


@lru_cache(maxsize=1)
def _subsets(columns: tuple[int, ...], size: int) -> Tensor:
    """All subsets (S, size) of some columns, in lexicographic order."""
    return torch.tensor(list(combinations(columns, size)))


class ZeroShot(Task):
    """Asks for combinations that no training row has; sample i asks for the i-th of them, cyclically.

    Args:
        conditions: conjunctions, such as "Beard & Hat & Smiling".
    """

    name = "zero-shot"

    def __init__(self, conditions: list[str]) -> None:
        super().__init__(conditions=conditions)
        if not conditions:
            raise UserError("task zero-shot: no conditions; give at least one")
        self.conditions = conditions

    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Tensor]:
        """One step: the sample's combination."""
        rows = torch.cat([targets(parse(text, schema), schema, 1) for text in self.conditions])
        return [rows[index.cpu() % len(rows)].to(labels)]


class Editing(Task):
    """Edits each held-out row, one attribute after another, to the opposite of its label.

    A binary attribute is flipped. A continuous one is mirrored about the middle of its range.

    Args:
        attributes: binary or continuous attributes, in the order of the edits.
    """

    name = "editing"
    edits = True

    def __init__(self, attributes: list[str]) -> None:
        super().__init__(attributes=attributes)
        if not attributes:
            raise UserError("task editing: no attributes; give at least one")
        self.attributes = attributes

    def steps(self, labels: Tensor, index: Tensor, schema: AttributeSchema) -> list[Tensor]:
        """One step per attribute."""
        out = []
        for name in self.attributes:
            attribute, column = schema[name], schema.index(name)
            if attribute.kind == "categorical":
                raise UserError(f"task editing: {name} is categorical, it has no opposite; leave it out")
            low, high = (0.0, 1.0) if attribute.kind == "binary" else (attribute.low, attribute.high)
            row = torch.full_like(labels, torch.nan)
            row[:, column] = low + high - labels[:, column]
            out.append(row)
        return out


def caption(target: Tensor, schema: AttributeSchema) -> str:
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

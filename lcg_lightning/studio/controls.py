"""Sliders and switches of the attributes: where they stand for a reading, and what moving them asks for."""

import math
from typing import NamedTuple

from torch import Tensor

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import Condition, Is, Not

Value = bool | float | str
"""What a control shows: a switch of a binary attribute, a number in natural units, or the name of a class."""


class Change(NamedTuple):
    """One attribute set to one value."""

    name: str
    value: Value


def step(low: float, high: float) -> float:
    """The step of a slider: 1, 2 or 5 times a power of ten, for 20 to 100 steps.

    >>> step(18, 80), step(-30, 30), step(0, 1)
    (1.0, 1.0, 0.01)
    """
    rough = (high - low) / 100
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= 100)


def rounded(value: float, attribute: Attribute) -> float:
    """A number that the slider of a continuous attribute can show."""
    size = step(attribute.low, attribute.high)
    steps = round((min(max(value, attribute.low), attribute.high) - attribute.low) / size)
    return min(round(attribute.low + steps * size, 10), attribute.high)


def taken(value: Value | None, now: Value, attribute: Attribute) -> Value:
    """What a control's value asks for: the nearest number of the range if it is half typed, ``now`` if it is empty."""
    if value is None:
        return now
    if attribute.kind != "continuous":
        return value
    return min(max(float(value), attribute.low), attribute.high)


def standing(outputs: Tensor, schema: AttributeSchema) -> tuple[Value, ...]:
    """Where the controls stand for a classifier's outputs (1, K)."""
    values: list[Value] = []
    for attribute, label in zip(schema, schema.predict(outputs)[0].tolist(), strict=True):
        if attribute.kind == "binary":
            values.append(label == 1)
        elif attribute.kind == "categorical":
            values.append(attribute.classes[int(label)])
        else:
            values.append(rounded(label, attribute))
    return tuple(values)


def condition(change: Change, schema: AttributeSchema) -> Condition:
    """What a moved control asks for."""
    attribute = schema[change.name]
    if attribute.kind == "binary":
        return Is(change.name) if change.value else Not(Is(change.name))
    if attribute.kind == "categorical":
        return Is(change.name, float(attribute.classes.index(str(change.value))))
    return Is(change.name, float(change.value))

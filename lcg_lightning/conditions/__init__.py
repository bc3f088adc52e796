"""Conditions on samples: trees over attributes, parsed from text and evaluated as one log-probability."""

from lcg_lightning.conditions.labels import definite, met, named, placed, take
from lcg_lightning.conditions.language import parse, to_text
from lcg_lightning.conditions.probability import log_prob
from lcg_lightning.conditions.tree import (
    And,
    Condition,
    Is,
    Not,
    Or,
    Scaled,
    asked,
    conjunction,
    merge,
    names,
    targets,
)

__all__ = [
    "And",
    "Condition",
    "Is",
    "Not",
    "Or",
    "Scaled",
    "asked",
    "conjunction",
    "definite",
    "log_prob",
    "merge",
    "met",
    "named",
    "names",
    "parse",
    "placed",
    "take",
    "targets",
    "to_text",
]

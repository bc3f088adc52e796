"""Conditions on samples: trees over attributes, parsed from text and evaluated as one log-probability."""

from lcg_lightning.conditions.language import parse, to_text
from lcg_lightning.conditions.probability import log_prob
from lcg_lightning.conditions.tree import (
    And,
    Condition,
    Is,
    Not,
    Or,
    Scaled,
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
    "conjunction",
    "log_prob",
    "merge",
    "names",
    "parse",
    "targets",
    "to_text",
]

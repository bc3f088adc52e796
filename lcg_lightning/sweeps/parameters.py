"""Parameters of a sweep in W&B's format."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcg_lightning.errors import UserError

_DISTRIBUTIONS = {
    "constant": {"value"},
    "categorical": {"values"},
    "int_uniform": {"min", "max"},
    "uniform": {"min", "max"},
    "q_uniform": {"min", "max", "q"},
    "log_uniform": {"min", "max"},
    "log_uniform_values": {"min", "max"},
}
"""W&B's distributions that can be drawn from, with their keys; ``log_uniform`` gives natural logarithms of its ends."""


@dataclass(frozen=True)
class Listed:
    """A parameter that takes one of the listed values, written as W&B passes them on the command line."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Ranged:
    """A parameter that takes a number from ``low`` to ``high``, both included."""

    low: float
    high: float
    step: float | None = None
    """Distance of neighbouring values; None if every number between is possible."""
    log: bool = False
    """Whether the logarithm is uniform rather than the number."""

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int)

    @property
    def count(self) -> int:
        """How many values a stepped range has."""
        assert self.step is not None
        return math.floor(min((self.high - self.low) / self.step + 1e-9, 1e18)) + 1

    def listed(self) -> Listed:
        """All values of a stepped range."""
        assert self.step is not None
        return Listed(tuple(str(tidy(self.low + i * self.step)) for i in range(self.count)))


Parameter = Listed | Ranged


def tidy(value: float) -> float:
    """The number without the last digits that binary arithmetic leaves: 0.3 rather than 0.30000000000000004."""
    return value if isinstance(value, int) else float(f"{value:.12g}")


def read_parameter(given: Any, where: str) -> Parameter:
    """A parameter from its W&B form.

    Args:
        given: the mapping under the parameter's name.
        where: what error messages call it.

    Raises:
        UserError: an unknown key or distribution, or values that do not fit it.
    """
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"{where} is {given!r}; give value, values, or min and max")
    kind = given.get("distribution", _implied(given, where))
    if not isinstance(kind, str) or kind not in _DISTRIBUTIONS:
        raise UserError(f"{where}: the distribution {kind!r} is not supported; use {', '.join(_DISTRIBUTIONS)}")
    keys = _DISTRIBUTIONS[kind]
    if odd := sorted(given.keys() - keys - {"distribution"}, key=str):
        raise UserError(f"{where}: {odd[0]!r} is not supported with {kind}, which takes {', '.join(sorted(keys))}")
    if missing := sorted(keys - given.keys() - {"q"}):
        raise UserError(f"{where}: {kind} needs {missing[0]!r}; give it")
    if kind in ("constant", "categorical"):
        return _listed(given["values"] if kind == "categorical" else [given["value"]], where)
    return _ranged(kind, given, where)


def _implied(given: Mapping[str, Any], where: str) -> str:
    """The distribution that W&B takes where none is named."""
    if "value" in given or "values" in given:
        return ("values" in given and "categorical") or "constant"
    if "min" in given and "max" in given:
        return "int_uniform" if isinstance(given["min"], int) and isinstance(given["max"], int) else "uniform"
    raise UserError(f"{where} has {', '.join(map(str, given))}; give value, values, or min and max")


def _listed(values: Any, where: str) -> Listed:
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: values is {values!r}; give a list with at least one value")
    texts = tuple(str(value) for value in values)
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise UserError(f"{where}: the value {twice[0]} is given twice; give it once")
    return Listed(texts)


def _ranged(kind: str, given: Mapping[str, Any], where: str) -> Ranged:
    for key in ("min", "max", "q"):
        value = given.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{where}: {key} is {value!r}; give a number")
    low, high, step = given["min"], given["max"], given.get("q", 1)
    if low > high:
        raise UserError(f"{where}: min {low} is above max {high}; exchange them")
    if kind == "int_uniform":
        if not (isinstance(low, int) and isinstance(high, int)):
            raise UserError(f"{where}: int_uniform goes from {low} to {high}; give integers, or use uniform")
        return Ranged(low, high, step=1)
    if kind == "q_uniform":
        if step <= 0:
            raise UserError(f"{where}: q is {step}; give a number above 0")
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)  # multiples of q within the range
        if first > last:
            raise UserError(f"{where}: no multiple of q {step} lies between {low} and {high}; give a smaller q")
        return Ranged(tidy(first * step), tidy(last * step), step)
    if kind == "log_uniform":
        try:
            low, high = math.exp(low), math.exp(high)
        except OverflowError:
            raise UserError(f"{where}: log_uniform takes logarithms, and e^{high} is too large") from None
        if low == 0:
            raise UserError(f"{where}: log_uniform takes logarithms, and e^{given['min']} is 0 in floating point")
    if kind == "log_uniform_values" and low <= 0:
        raise UserError(f"{where}: min is {low}, which has no logarithm; give a number above 0, or use uniform")
    return Ranged(float(low), float(high), log=kind.startswith("log"))

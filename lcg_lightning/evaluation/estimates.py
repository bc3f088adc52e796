"""Results of a metric: estimates with intervals, and the columns that show them."""

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from lcg_lightning.errors import UserError


class Estimate(NamedTuple):
    """A metric's value with its 95 % interval; the bounds are NaN if there are too few samples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """How a metric's figure is recorded and shown.

    Figures share a column of the leaderboard only if name and ``basis`` are equal.
    """

    name: str
    """Key of the figure in records: lower-case letters, digits and underscores."""
    heading: str
    digits: int = 3
    higher_is_better: bool | None = True
    """None where neither is better: the figure is read against that of real data, and nobody is ranked by it."""
    low: float = -math.inf
    """Smallest possible value."""
    high: float = math.inf
    """Largest possible value."""
    basis: dict[str, str] = field(default_factory=dict)
    """What the figure depends on besides the generator, the store and the number of samples, such as the judge."""

    checks: str = ""
    """Column whose figure this one measures again in another way; a fall beyond both intervals is marked."""

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name):
            raise UserError(f"column {self.name!r}: give a name of lower-case letters, digits and underscores")

    def shown(self, value: float, low: float = math.nan, high: float = math.nan) -> str:
        """A value with the column's digits, and its interval if known: ``0.912 [0.901, 0.923]``.

        A large number has fewer decimals, so that it has five digits in all.

        >>> Column("kid", "KID", digits=4).shown(929.7541, 0.01234, 1344.7835)
        '929.75 [0.0123, 1344.8]'
        """
        unknown = math.isnan(low) or math.isnan(high)
        return self._rounded(value) + ("" if unknown else f" {self.bounds(low, high)}")

    def bounds(self, low: float, high: float) -> str:
        """An interval with the column's digits: ``[0.901, 0.923]``."""
        return f"[{self._rounded(low)}, {self._rounded(high)}]"

    def _rounded(self, value: float) -> str:
        if not math.isfinite(value):
            return str(value)
        return f"{value:.{max(0, min(self.digits, 5 - len(str(int(abs(value))))))}f}"


def owner(figure: str) -> str:
    """The column that a figure belongs to: ``acc/Smiling`` is a detail of ``acc``."""
    return figure.split("/", 1)[0]

"""What a visitor can set of a method: how strongly it edits, how far a face may move, and what is held."""

from dataclasses import dataclass
from typing import Any

from lcg_lightning.methods.base import Method, strength
from lcg_lightning.studio.methods import takes


@dataclass(frozen=True)
class Knobs:
    """A method's own settings; None where it has no such option."""

    scale: float | None
    tau: float | None
    keep: bool | None

    @property
    def step(self) -> float:
        """The step of the strength's slider."""
        return 0.5 if (self.scale or 0) >= 4 else 0.1

    @property
    def strongest(self) -> float:
        """The end of the strength's slider."""
        return round(2.5 * (self.scale or 1), 1)

    def changes(self, scale: float | None, tau: float | None, keep: bool) -> dict[str, Any]:
        """The arguments that a visitor has given other values than the method's own; None gives none."""
        asked = {"scale": scale, "tau": tau, "keep": keep}
        own = {"scale": self.scale, "tau": self.tau, "keep": self.keep}
        return {
            name: value for name, value in asked.items() if own[name] is not None and value not in (None, own[name])
        }


def knobs(method: Method) -> Knobs:
    """The settings that a method has."""
    tau = getattr(method, "tau", None) if takes(method, "tau") else None
    keep = getattr(method, "keep", None) if takes(method, "keep") else None
    return Knobs(strength(method, edits=True), tau, keep)

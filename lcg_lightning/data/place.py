"""Output places of stores: a store is built beside its final place until it is complete."""

import os
from pathlib import Path

from lcg_lightning.files import ensure_creatable, ensure_writable

PUBLISHED = "published.json"
"""File in the partial folder that records that the store has been moved to its place."""


def partial(out: Path) -> Path:
    """The folder that keeps finished rows until the store is complete: ``<out>.partial``."""
    real = Path(os.path.realpath(out))
    return real.parent / f"{real.name}.partial"


def ensure_place(out: Path) -> None:
    """Check, before anything is loaded, that a store can be made, or that an interrupted run can continue.

    Raises:
        UserError: the place is occupied or not writable.
    """
    if os.path.exists(partial(out) / PUBLISHED):
        ensure_writable(partial(out))
    else:
        ensure_creatable(out)

"""Where a store is made: beside its place until it is whole."""

import os
from pathlib import Path

from lcg_lightning.files import ensure_creatable, ensure_writable

PUBLISHED = "published.json"
"""What tells, in the folder beside the place, that the store has been moved there."""


def partial(out: Path) -> Path:
    """Where the finished rows of a store are kept until it is whole: ``<out>.partial``."""
    real = Path(os.path.realpath(out))
    return real.with_name(f"{real.name}.partial")


def ensure_place(out: Path) -> None:
    """Check, before anything is loaded, that a folder can be made, or that an interrupted run can go on.

    Raises:
        UserError: something else is there, or nothing can be written there.
    """
    if os.path.exists(partial(out) / PUBLISHED):
        ensure_writable(partial(out))
    else:
        ensure_creatable(out)

"""Per-sample figures of a run, by which methods are compared in pairs: ``samples.safetensors`` beside its record.

The file holds a tensor (n,) float64 for each figure that is a mean over samples, named as in the record's metrics and
ordered by sample index; NaN where the sample does not count.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.records import Record
from lcg_lightning.files import atomic, require_file

FILE = "samples.safetensors"


def write(figures: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Writes per-sample figures (n,) by name atomically."""
    with atomic(path) as temporary:
        save_file({name: np.ascontiguousarray(x, dtype=np.float64) for name, x in figures.items()}, temporary)


def read(path: Path, record: Record) -> dict[str, NDArray[np.float64]]:
    """Reads the per-sample figures (n,) by name that belong to a record.

    Raises:
        UserError: the file cannot be read, or its figures are not those whose means the record gives.
    """
    require_file(path, "the per-sample figures that `lcg test` wrote")
    try:
        found = load_file(path)
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:  # or a type that NumPy lacks
        raise UserError(f"{path} cannot be read ({error}); evaluate again to replace it") from error
    for name, x in found.items():
        if x.shape != (record.n,) or x.dtype != np.float64:
            raise UserError(f"{path}: {name} is {x.dtype} of shape {x.shape}, not one figure for each of {record.n}")
        mean = float(np.nanmean(x)) if np.isfinite(x).any() else math.nan
        known = record.metrics[name].value if name in record.metrics else math.nan
        if not (math.isclose(mean, known, rel_tol=1e-6, abs_tol=1e-9) or (mean != mean and known != known)):
            raise UserError(f"{path}: {name} has mean {mean:g}, the record says {known:g}; these are of another run")
    return found

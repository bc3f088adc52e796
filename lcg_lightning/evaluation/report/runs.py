"""Runs below a folder: records with their per-sample figures, and which of them differ only in their seeds."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.records import Record
from lcg_lightning.files import load_json

if TYPE_CHECKING:  # a leaderboard of records alone needs no NumPy
    import numpy as np
    from numpy.typing import NDArray

_SAMPLES = "samples.safetensors"
_WORLD = ("generator", "store", "asked")


@dataclass(frozen=True, eq=False)
class Run:
    """A record, and the per-sample figures beside it."""

    record: Record
    path: Path
    """The record's path below the folder of the leaderboard."""
    samples: "Mapping[str, NDArray[np.float64]]" = field(default_factory=dict)
    """Figures (n,) by name; empty where there are none."""

    @property
    def basis(self) -> dict[str, str]:
        """What the figures depend on besides generator, store and number of samples."""
        return {key: value for column in self.record.columns for key, value in column.basis.items()}


def find(folder: Path) -> list[Run]:
    """Every run below a folder, by path; hidden files and folders are skipped.

    JSON files that are not records are skipped with a log message, files that are not valid JSON, such as half-written
    ones, with a warning. Per-sample figures that cannot be read are left out with a warning.

    Raises:
        UserError: the folder is missing or holds no record, or a record has another version or impossible values.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that evaluations wrote their records to")
    log = logging.getLogger(__name__)
    found = []
    for path in sorted(folder.glob("**/*.json")):
        where = path.relative_to(folder)
        if any(part.startswith(".") for part in where.parts):
            continue
        try:
            data = load_json(path)
        except UserError as error:
            log.warning("passed over: %s", error)
            continue
        if records.is_record(data):
            record = records.read(path)
            found.append(Run(record, where, _samples(path, record, log)))
        elif path != folder / "leaderboard.json":
            log.info("%s is not an evaluation record, passed over", path)
    if not found:
        raise UserError(f"no evaluation record (*.json) below {folder}; run `lcg test` first")
    return found


def _samples(path: Path, record: Record, log: logging.Logger) -> "Mapping[str, NDArray[np.float64]]":
    file = path.with_name(_SAMPLES)
    if path.name != "record.json" or not file.exists():
        return {}
    from lcg_lightning.evaluation import samples

    try:
        return samples.read(file, record)
    except UserError as error:
        log.warning("not compared in pairs: %s", error)
        return {}


def by_seeds(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that make one row of the leaderboard: those that differ only in seeds.

    They agree in task, method and its label, number of samples, everything that their figures depend on, and
    configuration, apart from arguments called ``seed`` and numbers in the paths of checkpoints (``*.ckpt``), such as
    ``prior`` and ``prior-1``; their networks were trained with the same arguments. Runs of one seed and the same
    networks are repetitions, not seeds; each has a row, and so has a run that failed.
    """
    rows: dict[str, list[Run]] = {}
    for run in runs:
        key = _apart_from_seeds(run)
        drawn = [(other.record.seed, other.record.fingerprints) for other in rows.get(key, [])]
        if run.record.failure is not None or (run.record.seed, run.record.fingerprints) in drawn:
            key = str(run.path)
        rows.setdefault(key, []).append(run)
    return list(rows.values())


def _apart_from_seeds(run: Run) -> str:
    record = run.record
    same = {k: v for k, v in record.fingerprints.items() if k in _WORLD or k.endswith("_arguments")}
    about = [record.task, record.method, record.n, record.sampler, same, records.columns_json(record)]
    return json.dumps([*about, _without_seeds(record.config)], sort_keys=True)


def _without_seeds(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_seeds(each) for key, each in value.items() if key != "seed"}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_seeds(each) for each in value]
    return re.sub(r"[-_]?\d+", "", value) if isinstance(value, str) and value.endswith(".ckpt") else value

"""A record: what one evaluation run was and what it measured, as one JSON file."""

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any

import torch

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.intervals import Estimate
from lcg_lightning.files import atomic, load_json

FORMAT = "lcg-record"
VERSION = 2
_PACKAGES = ("lcg-lightning", "torch", "lightning", "torchmetrics", "numpy", "scipy", "clean-fid")
_KINDS: dict[str, type | UnionType] = {
    **dict.fromkeys(("task", "method", "store_fingerprint", "generator_fingerprint", "sampler"), str),
    **dict.fromkeys(("features", "features_fingerprint", "judge", "identity", "commit"), str | None),
    **dict.fromkeys(("n", "seed"), int),
    **dict.fromkeys(("nfe", "seconds"), int | float),
    **dict.fromkeys(("config", "versions", "metrics"), dict),
}


@dataclass(frozen=True)
class Record:
    """One evaluation run."""

    task: str
    method: str
    config: Mapping[str, Any]
    """The method's full configuration; its ``scale`` is the guidance scale."""
    store_fingerprint: str
    generator_fingerprint: str
    features: str | None
    """Name of the features that the Fréchet distance compares; None if it was not measured."""
    features_fingerprint: str | None
    judge: str | None
    """Name and fingerprint of the network that accuracies are measured with, ``name @fingerprint``."""
    identity: str | None
    """The same of the network that identities are measured with."""
    n: int
    """Number of samples."""
    seed: int
    sampler: str
    nfe: float
    """Function evaluations of the prior per sample."""
    seconds: float
    """Wall time of generating all samples."""
    versions: Mapping[str, str]
    commit: str | None
    metrics: Mapping[str, Estimate]
    """Such as ``acc_joint``, ``acc``, ``acc/<attribute>``, ``fid``, ``id``, ``id/step<k>``, ``drift``."""


def write(record: Record, path: Path) -> None:
    """Writes a record whole or not at all; numbers that are not finite become null.

    Raises:
        UserError: the configuration holds something that JSON cannot.
    """
    metrics = {
        name: {key: x if math.isfinite(x) else None for key, x in estimate._asdict().items()}
        for name, estimate in record.metrics.items()
    }
    data = {"format": FORMAT, "version": VERSION, **asdict(replace(record, metrics={})), "metrics": metrics}
    try:
        text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the record cannot be kept as JSON ({error}); use plain numbers and text") from error
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Reads a record.

    Raises:
        UserError: the file cannot be read, is no record, is of another version, or lacks or adds fields.
    """
    data = load_json(path)
    if not is_record(data):
        raise UserError(f"{path} is not an evaluation record; give a file that `lcg test` wrote")
    if data["version"] != VERSION:
        raise UserError(
            f"{path}: record version {data['version']}, this release reads version {VERSION}; evaluate again"
        )
    content = {key: value for key, value in data.items() if key not in ("format", "version")}
    known = {field.name for field in fields(Record)}
    if odd := sorted(known ^ content.keys()):
        kind = "lacks" if odd[0] in known else "has the unknown field"
        raise UserError(f"{path}: the record {kind} {odd[0]!r}; evaluate again to write it anew")
    for key, expected in _KINDS.items():
        if not isinstance(content[key], expected):
            raise UserError(f"{path}: the record's {key} is {content[key]!r}; evaluate again to write it anew")
    try:
        content["metrics"] = {name: _estimate(**value) for name, value in content["metrics"].items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: a metric is not value, low, high; evaluate again to write it anew") from error
    return Record(**content)


def is_record(data: Any) -> bool:
    """Whether the content of a JSON file says that it is an evaluation record, of whatever version."""
    return isinstance(data, dict) and data.get("format") == FORMAT and "version" in data


def _estimate(value: float | None, low: float | None, high: float | None) -> Estimate:
    return Estimate(*(math.nan if x is None else float(x) for x in (value, low, high)))


def collect_versions() -> dict[str, str]:
    """Versions of what the figures depend on: Python, the numerical packages, and the device."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "python": platform.python_version(),
        "device": device,
        **{name: version(name) for name in _PACKAGES},
    }


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, ``-dirty`` if changed; None outside a checkout."""
    file = Path(__file__)
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True, capture_output=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

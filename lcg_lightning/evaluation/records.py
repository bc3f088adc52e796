"""Records: the configuration and the results of one evaluation run, as a JSON file."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import Column, Estimate, owner
from lcg_lightning.files import atomic, load_json

FORMAT = "lcg-record"
VERSION = 4


@dataclass(frozen=True)
class Record:
    """One evaluation run."""

    task: str
    method: str
    config: Mapping[str, Any]
    """Every argument of the evaluation, with those of its task, method and metrics."""
    fingerprints: Mapping[str, str]
    """Fingerprints of ``store`` (its content), ``generator``, the judging networks that were used, the networks that
    the method loaded and the arguments of their training, and ``asked``: the targets of all test rows."""
    reference: str | None
    """The pictures that FID compares with, in words; None if nothing was compared."""
    n: int
    """Number of samples."""
    seed: int
    sampler: str
    nfe: float
    """Evaluations per sample of the network that the method integrates, such as the prior."""
    seconds: float
    """Wall time of generating all samples."""
    memory: Mapping[str, int]
    """Peak memory in bytes, of the process that took most: ``cuda``, what PyTorch allocated on the GPU during the run;
    on a CPU ``resident``, the largest resident set since the process began, with all that it did before."""
    command: Sequence[str] | None
    """The command line that made the run, without environment; None for a run from Python."""
    ranked: bool
    """Whether the method competes; one that knows the truth, such as the oracle, does not."""
    failure: str | None
    """Why the run lacks figures: the method diverged, or a figure is not finite. None for a run that ended well."""
    versions: Mapping[str, str]
    commit: str | None
    columns: Sequence[Column]
    """The figures that a leaderboard shows, in order."""
    metrics: Mapping[str, Estimate]
    """Estimates by name, such as ``acc_joint``, ``fid``, and details such as ``acc/Smiling`` of a column ``acc``."""

    @property
    def scale(self) -> float | None:
        """The method's guidance scale, if it has one."""
        found = self.config.get("method", {}).get("init_args", {}).get("scale")
        return found if _number(found) else None

    def summary(self) -> str:
        """The figures of the columns with their intervals, in one line."""
        figures = [
            f"{column.heading} {column.shown(*self.metrics[column.name])}"
            for column in self.columns
            if column.name in self.metrics
        ]
        return f"{self.method} on {self.task}: {', '.join(figures)}"


def write(record: Record, path: Path) -> None:
    """Writes a record atomically; bounds, figures and intervals that are not finite become null.

    Raises:
        UserError: the configuration cannot be represented in JSON, or a figure is out of its column's range.
    """
    data: dict[str, Any] = {"format": FORMAT, "version": VERSION, **identity(record)}
    data["columns"] = columns_json(record)
    data["metrics"] = {name: _nulls(estimate._asdict()) for name, estimate in record.metrics.items()}
    try:
        text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the record cannot be kept as JSON ({error}); use plain numbers and text") from error
    _parse(json.loads(text), path)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def identity(record: Record) -> dict[str, Any]:
    """The run's configuration and provenance without its results, as JSON values."""
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in ("columns", "metrics")}


def columns_json(record: Record) -> list[dict[str, Any]]:
    """The columns of a record as JSON values."""
    return [_nulls(asdict(column)) for column in record.columns]


def column_of_json(data: Mapping[str, Any]) -> Column:
    """The inverse of :func:`columns_json`, for one column."""
    low, high = (-math.inf if data["low"] is None else data["low"], math.inf if data["high"] is None else data["high"])
    return Column(**dict(data) | {"low": low, "high": high})


def read(path: Path) -> Record:
    """Reads a record. Figures that are not finite are left out, and :attr:`Record.failure` says so.

    Raises:
        UserError: the file cannot be read, is not a record, has another version, has missing or unknown fields, or
            holds an impossible value.
    """
    data = load_json(path)
    if not is_record(data):
        raise UserError(f"{path} is not an evaluation record; give a file that `lcg test` wrote")
    return _parse(data, path)


def is_record(data: Any) -> bool:
    """Whether the content of a JSON file is an evaluation record of any version."""
    return isinstance(data, dict) and data.get("format") == FORMAT and "version" in data


def _parse(data: dict[str, Any], path: Path) -> Record:
    if data["version"] != VERSION:
        raise UserError(
            f"{path}: record version {data['version']}, this release reads version {VERSION}; evaluate again, or move "
            "the file away"
        )
    content = {key: value for key, value in data.items() if key not in ("format", "version")}
    if odd := sorted(_FIELDS.keys() ^ content.keys()):
        kind = "lacks" if odd[0] in _FIELDS else "has the unknown field"
        raise UserError(f"{path}: the record {kind} {odd[0]!r}; evaluate again to replace it")
    for key, possible in _FIELDS.items():
        if not possible(content[key]):
            raise UserError(f"{path}: the record's {key} is {_short(content[key])}; evaluate again to replace it")
    columns = [_column(each, path) for each in content["columns"]]
    if len({column.name for column in columns}) < len(columns):
        raise UserError(f"{path}: two columns have one name; rename the figure of one of the metrics")
    bounds = {column.name: (column.low, column.high) for column in columns}
    found = {name: _estimate(name, each, bounds, path) for name, each in content["metrics"].items()}
    metrics = {name: estimate for name, estimate in found.items() if math.isfinite(estimate.value)}
    if broken := sorted(found.keys() - metrics.keys()):
        content["failure"] = content["failure"] or f"not finite: {', '.join(broken)}"
    try:
        json.dumps({**content, "metrics": list(found)}, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:  # infinity in the configuration, or half of a surrogate pair
        raise UserError(f"{path}: the record cannot be shown ({error}); evaluate again to replace it") from error
    return Record(**content | {"columns": columns, "metrics": metrics})


def _column(data: Any, path: Path) -> Column:
    known = _COLUMN_FIELDS
    if not isinstance(data, dict) or data.keys() != known.keys() or not all(known[k](v) for k, v in data.items()):
        raise UserError(f"{path}: a column is {_short(data)}; evaluate again to replace it")
    return column_of_json(data)


def _estimate(name: str, data: Any, bounds: Mapping[str, tuple[float, float]], path: Path) -> Estimate:
    if not isinstance(data, dict) or data.keys() != {"value", "low", "high"}:
        raise UserError(f"{path}: metric {name} is not value, low, high; evaluate again to replace it")
    if owner(name) not in bounds:
        raise UserError(f"{path}: metric {name} belongs to no column; declare a column {owner(name)!r}")
    least, most = bounds[owner(name)]
    value, low, high = data["value"], data["low"], data["high"]
    if value is None or value != value:
        return Estimate(math.nan, math.nan, math.nan)
    ends = [x for x in (low, high) if x is not None]
    if not all(_number(x) and least <= x <= most for x in (value, *ends)) or sorted(ends) != ends:
        raise UserError(
            f"{path}: metric {name} is {value!r} [{low!r}, {high!r}], which is impossible; evaluate again to replace it"
        )
    return Estimate(*(math.nan if x is None else float(x) for x in (value, low, high)))


def _nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, with null for numbers that are not finite."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _class(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("init_args", {}), dict)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "task": _text,
    "method": _text,
    "config": lambda x: isinstance(x, dict) and all(_class(x.get(key, {})) for key in ("method", "task")),
    "fingerprints": lambda x: _texts(x) and {"store", "generator", "asked"} <= x.keys(),
    "reference": lambda x: x is None or _text(x),
    "n": lambda x: _whole(x) and x >= 1,
    "seed": _whole,
    "sampler": _text,
    "nfe": lambda x: _number(x) and x >= 0,
    "seconds": lambda x: _number(x) and x >= 0,
    "memory": lambda x: isinstance(x, dict) and all(_whole(v) and v >= 0 for v in x.values()),
    "command": lambda x: x is None or (isinstance(x, list) and all(map(_text, x))),
    "ranked": lambda x: isinstance(x, bool),
    "failure": lambda x: x is None or _text(x),
    "versions": _texts,
    "commit": lambda x: x is None or _text(x),
    "columns": lambda x: isinstance(x, list),
    "metrics": lambda x: isinstance(x, dict),
}
_COLUMN_FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": _text,
    "heading": _text,
    "digits": lambda x: _whole(x) and 0 <= x <= 20,
    "higher_is_better": lambda x: x is None or isinstance(x, bool),
    "low": lambda x: x is None or _number(x),
    "high": lambda x: x is None or _number(x),
    "basis": _texts,
    "checks": lambda x: isinstance(x, str),
}

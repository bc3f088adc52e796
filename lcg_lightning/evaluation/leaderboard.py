"""The leaderboard: every record below a folder, compared per task."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import figures, records
from lcg_lightning.evaluation.records import Record
from lcg_lightning.files import atomic, load_json

Row = dict[str, Any]
"""One record's line: JSON values only; see :func:`build`."""

_MEASURED = ("acc_joint", "acc", "fid", "id", "drift")
_MISSING = "—"
_NOTE = (
    "Brackets are 95 % intervals: the bootstrap over samples, for FID the delete-one-group jackknife. "
    "FID is lower-is-better and comparable only within a column and at equal n; NFE counts the prior's "
    "function evaluations per sample; s is the seconds that generating all n samples took."
)


def build(folder: Path) -> list[Row]:
    """Reads every record (``**/*.json``) below a folder.

    JSON files that do not call themselves records are passed over with a log message.

    Returns:
        Rows by task, then falling joint accuracy. Each has task, method, scale, sampler, n, seed, nfe,
        seconds, features, features_fingerprint, generator, judge,
        identity_network, record (path below the folder), the values acc_joint, acc,
        fid, id and drift (None if not measured), and ``intervals``: [low, high] of each that was measured.

    Raises:
        UserError: the folder is missing or holds no record, or a record cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that evaluations wrote their records to")
    rows = []
    for path in sorted(folder.glob("**/*.json")):
        if path.name.startswith("."):
            continue
        if records.is_record(load_json(path)):
            rows.append(_row(records.read(path), path.relative_to(folder)))
        elif path != folder / "leaderboard.json":
            logging.getLogger(__name__).info("%s is not an evaluation record, passed over", path)
    if not rows:
        raise UserError(f"no evaluation record (*.json) below {folder}; run `lcg test` first")
    return sorted(rows, key=_rank)


def _row(record: Record, path: Path) -> Row:
    measured = {name: record.metrics[name] for name in _MEASURED if name in record.metrics}
    scale = record.config.get("scale")
    return {
        "task": record.task,
        "method": record.method,
        "scale": scale if isinstance(scale, int | float) else None,
        "sampler": record.sampler,
        "n": record.n,
        "seed": record.seed,
        "nfe": record.nfe,
        "seconds": record.seconds,
        "features": record.features,
        "features_fingerprint": record.features_fingerprint,
        "generator": record.generator_fingerprint[:8],
        "judge": record.judge,
        "identity_network": record.identity,
        "record": path.as_posix(),
        **{name: _finite(measured[name].value) if name in measured else None for name in _MEASURED},
        "intervals": {name: [_finite(e.low), _finite(e.high)] for name, e in measured.items()},
    }


def _finite(x: float) -> float | None:
    return None if x != x else x


def _rank(row: Row) -> tuple[Any, ...]:
    joint = row["acc_joint"]
    return row["task"], joint is None, -(joint or 0.0), row["method"], row["record"]


def write_leaderboard(folder: Path) -> list[Row]:
    """Writes ``leaderboard.md``, ``leaderboard.json`` (the rows) and, per task that has edits, a figure.

    Returns:
        The rows, as :func:`build` gives them.

    Raises:
        UserError: as :func:`build`.
    """
    rows = build(folder)
    parts = ["# Leaderboard", _NOTE]
    for task, group in groupby(rows, key=lambda row: row["task"]):
        members = list(group)
        shared, headings, lines = _table(members)
        parts += [f"## {task}", *([f"All rows: {shared}."] if shared else []), _markdown(headings, lines)]
        figure = f"accuracy_identity_{re.sub(r'[^A-Za-z0-9._-]+', '-', task)}.png"
        if figures.accuracy_identity(members, folder / figure, title=task):
            parts.append(f"![Joint accuracy against identity, {task}]({figure})")
    for name, text in {
        "leaderboard.md": "\n\n".join(parts),
        "leaderboard.json": json.dumps(rows, indent=2, allow_nan=False, ensure_ascii=False),
    }.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return rows


def print_leaderboard(rows: Sequence[Row], console: Console | None = None) -> None:
    """Prints a table per task; a terminal below 120 columns shows no intervals."""
    console = console or Console()
    for task, group in groupby(rows, key=lambda row: row["task"]):
        shared, headings, lines = _table(list(group), intervals=console.width >= 120)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title_justify="left")
        table.title = Text.assemble(task, "   ", (shared, "dim"))
        for i, heading in enumerate(headings):
            words = heading.replace(" ", "\n")
            table.add_column(words, justify="right" if i else "left", no_wrap=i == 0, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        console.print(table)


def _table(rows: Sequence[Row], intervals: bool = True) -> tuple[str, list[str], list[list[str]]]:
    """What all rows of a task share, in words, then headings and cells of the columns that any row fills."""
    settings: dict[str, Callable[[Row], str]] = {
        "sampler": lambda row: str(row["sampler"]),
        "n": lambda row: str(row["n"]),
        "seed": lambda row: str(row["seed"]),
        "generator": lambda row: str(row["generator"]),
        "judge": lambda row: row["judge"] or _MISSING,
        "identity network": lambda row: row["identity_network"] or _MISSING,
    }
    shared = {name: of(rows[0]) for name, of in settings.items() if len({of(row) for row in rows}) == 1}
    measured = partial(_measured, intervals=intervals)

    def fid(extractor: tuple[str, str], row: Row) -> str:
        return measured(row, "fid", 2) if _extractor(row) == extractor else _MISSING

    columns: dict[str, Callable[[Row], str]] = {
        "Method": lambda row: str(row["method"]),
        "Scale": lambda row: _MISSING if row["scale"] is None else f"{row['scale']:g}",
        **{name: of for name, of in settings.items() if name not in shared},
        "NFE": lambda row: f"{row['nfe']:g}",
        "s": lambda row: f"{row['seconds']:.1f}",
        "Joint accuracy": lambda row: measured(row, "acc_joint", 3),
        "Accuracy": lambda row: measured(row, "acc", 3),
        **{heading: partial(fid, extractor) for heading, extractor in _fid_columns(rows).items()},
        "Identity": lambda row: measured(row, "id", 3),
        "Drift": lambda row: measured(row, "drift", 3),
    }
    cells = {heading: [of(row) for row in rows] for heading, of in columns.items()}
    filled = {heading: column for heading, column in cells.items() if set(column) != {_MISSING}}
    words = ", ".join(f"{name} {value}" for name, value in shared.items() if value != _MISSING)
    return words, list(filled), [list(line) for line in zip(*filled.values(), strict=True)]


def _extractor(row: Row) -> tuple[str, str]:
    return row["features"] or "features unknown", row["features_fingerprint"] or ""


def _fid_columns(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Heading per feature extractor: its name, with its fingerprint where one name stands for several."""
    extractors = sorted({_extractor(row) for row in rows if row["fid"] is not None})
    names = [name for name, _ in extractors]
    return {
        f"FID ({name} @{mark[:8]})" if names.count(name) > 1 else f"FID ({name})": (name, mark)
        for name, mark in extractors
    }


def _measured(row: Row, name: str, digits: int, intervals: bool) -> str:
    """A value, and its interval where it has one: ``0.912 [0.901, 0.923]``."""
    if row[name] is None:
        return _MISSING
    low, high = row["intervals"][name]
    bounds = "" if low is None or high is None or not intervals else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{row[name]:.{digits}f}{bounds}"


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column flush left."""
    rule = [":--", *("--:" for _ in headings[1:])]
    cells = [headings, rule, *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in cells)

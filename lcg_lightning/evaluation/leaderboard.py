"""The leaderboard: every record below a folder, compared per task."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import plots, records
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.records import Record
from lcg_lightning.files import atomic, load_json

Row = dict[str, Any]
"""One record's line: JSON values only; see :func:`build`."""
Key = tuple[str, tuple[tuple[str, str], ...]]
"""Name and basis of a column; figures share a column only if both agree."""

_MISSING = "—"
_NOTE = (
    "Brackets are 95 % intervals: the bootstrap over samples, for FID the delete-one-group jackknife. "
    "Figures with another judge, reference, store, generator or number of samples have their own columns. FID is "
    "lower-is-better; NFE counts the prior's function evaluations per sample; s is the time to generate all n samples, "
    "in seconds; † marks a joint accuracy that falls under the second judge, beyond both intervals."
)


def build(folder: Path) -> list[Row]:
    """Reads every record (``**/*.json``) below a folder; hidden files and folders are skipped.

    JSON files that are not records are skipped with a log message. Files that are not valid JSON, such as half-written
    ones, are skipped with a warning.

    Returns:
        Rows by task, sorted by the task's first column, best first. Each row has task, task_config, method, scale,
        sampler, n, seed, nfe, seconds; generator, store and asked (8 digits of their fingerprints); judge,
        identity_network, features and reference (None if no figure depends on it); record (path below the folder);
        ``columns``, the value of each column by name (None if not measured); and ``intervals``, [low, high] of each
        measured column.

    Raises:
        UserError: the folder is missing or holds no record, or a record has another version or impossible values.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that evaluations wrote their records to")
    log = logging.getLogger(__name__)
    found: list[tuple[Record, Path]] = []
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
            found.append((records.read(path), where))
        elif path != folder / "leaderboard.json":
            log.info("%s is not an evaluation record, passed over", path)
    if not found:
        raise UserError(f"no evaluation record (*.json) below {folder}; run `lcg test` first")
    names = _in_order([column.name for column in record.columns] for record, _ in found)
    rows = [_row(record, path, names) for record, path in found]
    return [row for table in _tables(rows) for row in _ranked(table)]


def _row(record: Record, path: Path, names: Sequence[str]) -> Row:
    basis = {key: value for column in record.columns for key, value in column.basis.items()}
    measured = {name: record.metrics[name] for name in names if name in record.metrics}
    values: Row = {name: measured[name].value if name in measured else None for name in names}
    fixed = {
        "task": record.task,
        "task_config": record.config.get("task", {}),
        "method": record.method,
        "scale": record.scale,
        "sampler": record.sampler,
        "n": record.n,
        "seed": record.seed,
        "nfe": record.nfe,
        "seconds": record.seconds,
        **{key: record.fingerprints[key][:8] for key in ("generator", "store", "asked")},
        **{key: record.fingerprints.get(key, "")[:8] or None for key in ("prior", "classifier")},
        "judge": basis.get("judge"),
        "identity_network": basis.get("identity"),
        "features": basis.get("features"),
        "reference": basis.get("reference"),
        "record": path.as_posix(),
        "columns": records.columns_json(record),
        "intervals": {name: [_finite(e.low), _finite(e.high)] for name, e in measured.items()},
    }
    if clash := sorted(values.keys() & fixed.keys()):
        raise UserError(f"{path}: a metric's column is called {clash[0]!r}, which a row has already; rename it")
    return values | fixed


def _finite(x: float) -> float | None:
    return None if x != x else x


def _in_order(lists: Iterable[Sequence[str]]) -> list[str]:
    """The names in several lists, each once; the lists' order is kept where they agree."""
    merged: list[str] = []
    for names in lists:
        at = 0
        for name in names:
            if name not in merged:
                merged.insert(at, name)
            at = merged.index(name) + 1
    return merged


def _tables(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups rows that answer the same questions, ordered by task name."""

    def question(row: Row) -> tuple[str, str]:
        return row["task"], json.dumps(row["task_config"], sort_keys=True)

    return [list(group) for _, group in groupby(sorted(rows, key=question), key=question)]


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """One table's rows, best first by its first column; rows without a figure in that column come last."""
    columns = list(_columns(rows))

    def rank(row: Row) -> tuple[Any, ...]:
        mine = [(columns.index(key), column) for key, column in _keys(row).items() if row[column.name] is not None]
        if not mine:
            return len(columns), 0.0, row["method"], row["record"]
        place, column = min(mine, key=lambda found: found[0])
        return place, -row[column.name] if column.higher_is_better else row[column.name], row["method"], row["record"]

    return sorted(rows, key=rank)


def _keys(row: Row) -> dict[Key, Column]:
    """A row's columns by key, so that comparable figures share a column."""
    common = {"n": str(row["n"]), "generator": row["generator"], "store": row["store"], "asked": row["asked"]}
    columns = [records.column_of_json(each) for each in row["columns"]]
    return {(c.name, tuple(sorted((c.basis | common).items()))): c for c in columns}


def _columns(rows: Sequence[Row]) -> dict[Key, tuple[Column, str]]:
    """The columns that any row fills, with their headings; a heading shows where its basis differs from the others."""
    filled = [{k: c for k, c in _keys(row).items() if row[c.name] is not None} for row in rows]
    found = {key: column for columns in filled for key, column in columns.items()}
    order = _in_order([column.name for column in columns.values()] for columns in filled)
    headings = {}
    for key in sorted(found, key=lambda key: (order.index(key[0]), found[key].heading, key[1])):
        siblings = [dict(other[1]) for other in found if found[other].heading == found[key].heading]
        apart = [
            f"{what} {_short(value)}"
            for what, value in key[1]
            if any(other.get(what, value) != value for other in siblings)
        ]
        heading = found[key].heading + (f" [{', '.join(apart)}]" if apart else "")
        headings[key] = (found[key], heading)
    return headings


def _short(value: str) -> str:
    """A name with at most 8 digits of its fingerprint."""
    return re.sub(r"@([0-9a-f]{8})[0-9a-f]+", r"@\1", value)


def write_leaderboard(folder: Path) -> list[Row]:
    """Writes ``leaderboard.md``, ``leaderboard.json`` (the rows) and, for each task with edits, a figure.

    Returns:
        The rows, as returned by :func:`build`.

    Raises:
        UserError: as for :func:`build`.
    """
    rows = build(folder)
    parts = ["# Leaderboard", _NOTE]
    for title, members in _titled(rows):
        shared, headings, lines = _table(members)
        parts += [f"## {title}", *([f"All rows: {shared}."] if shared else []), _markdown(headings, lines)]
        figure = f"accuracy_identity_{re.sub(r'[^A-Za-z0-9._-]+', '-', title)[:100]}.png"
        if plots.accuracy_identity(members, folder / figure, title=title):
            parts.append(f"![Joint accuracy against identity, {title}]({figure})")
    for name, text in {
        "leaderboard.md": "\n\n".join(parts),
        "leaderboard.json": json.dumps(rows, indent=2, allow_nan=False, ensure_ascii=False),
    }.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return rows


def print_leaderboard(rows: Sequence[Row], console: Console | None = None) -> None:
    """Prints one table per task; terminals narrower than 120 columns show no intervals."""
    console = console or Console()
    for title, members in _titled(rows):
        shared, headings, lines = _table(members, intervals=console.width >= 120)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title_justify="left")
        table.title = Text.assemble(title, "   ", (shared, "dim"))
        for i, heading in enumerate(headings):
            words = heading.replace(" ", "\n")
            table.add_column(words, justify="right" if i else "left", no_wrap=i == 0, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        console.print(table)


def _titled(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Tables with their titles: the task's name, with its arguments if several tasks share that name."""
    tables = [(table[0]["task"], table[0]["task_config"], _ranked(table)) for table in _tables(rows)]
    names = [name for name, _, _ in tables]

    def title(name: str, config: dict[str, Any]) -> str:
        arguments = json.dumps(config.get("init_args", config), ensure_ascii=False)
        return name if names.count(name) == 1 else f"{name} {arguments}"

    return [(title(name, config), table) for name, config, table in tables]


def _table(rows: Sequence[Row], intervals: bool = True) -> tuple[str, list[str], list[list[str]]]:
    """A line with everything that a task's rows share, then headings and cells of the columns that any row fills."""
    apart = ("sampler", "n", "seed", "prior", "classifier")  # columns where rows differ; the others are in headings
    keys = (*apart, "generator", "store", "judge", "identity_network", "reference")
    values = {key: {_short(str(row[key])) for row in rows if row[key] is not None} for key in keys}
    shared = {key: min(found) for key, found in values.items() if len(found) == 1}
    columns: dict[str, Callable[[Row], str]] = {
        "Method": lambda row: f"{row['method']} †" if _refuted(row) else str(row["method"]),
        "Scale": lambda row: _MISSING if row["scale"] is None else f"{row['scale']:g}",
        **{key: partial(_stated, key=key) for key in apart if key not in shared},
        "NFE": lambda row: f"{row['nfe']:g}",
        "s": lambda row: f"{row['seconds']:.1f}",
    }
    cells = {heading: [of(row) for row in rows] for heading, of in columns.items()}
    for key, (column, heading) in _columns(rows).items():
        cells[heading] = [_measured(row, column, intervals) if key in _keys(row) else _MISSING for row in rows]
    filled = {heading: column for heading, column in cells.items() if set(column) != {_MISSING}}
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shared.items())
    return words, list(filled), [list(line) for line in zip(*filled.values(), strict=True)]


def _stated(row: Row, key: str) -> str:
    return _MISSING if row[key] is None else str(row[key])


def _refuted(row: Row) -> bool:
    """Whether a figure falls, beyond both intervals, when it is measured in another way."""
    for column in map(records.column_of_json, row["columns"]):
        first, second = (row["intervals"].get(name) for name in (column.checks, column.name))
        if first and second and None not in (first[0], second[1]) and second[1] < first[0]:
            return True
    return False


def _measured(row: Row, column: Column, intervals: bool) -> str:
    """A value, and its interval if it has one: ``0.912 [0.901, 0.923]``."""
    if row[column.name] is None:
        return _MISSING
    low, high = row["intervals"][column.name]
    known = intervals and low is not None and high is not None
    return column.shown(row[column.name], low, high) if known else column.shown(row[column.name])


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column flush left."""
    rule = [":--", *("--:" for _ in headings[1:])]
    cells = [headings, rule, *lines]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', '&#124;') for cell in line)} |" for line in cells
    )

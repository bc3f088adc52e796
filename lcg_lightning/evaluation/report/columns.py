"""Tables and their columns: which rows answer the same questions, and which figures are comparable."""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.estimates import Column

Row = dict[str, Any]
"""One line of the leaderboard: JSON values only; see :func:`lcg_lightning.evaluation.leaderboard.build`."""
Key = tuple[str, tuple[tuple[str, str], ...]]
"""Name and basis of a column; figures share a column only if both agree."""

DATA = "real"
"""Row of real data, that a figure without a better side is read against."""
_WORLD = ("generator", "store", "asked")


def tables(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that answer the same questions in the same world; best first, by their first column.

    Rows without a figure in that column come last. Tables of tasks with more samples come first, then by name.
    """

    def question(row: Row) -> tuple[str, ...]:
        return (row["task"], _json(row["task_config"]), _world(row), *(row[key] for key in _WORLD))

    groups = [list(group) for _, group in groupby(sorted(rows, key=question), key=question)]
    most: dict[str, int] = {}
    for row in rows:
        most[row["task"]] = max(row["n"], most.get(row["task"], 0))
    groups.sort(key=lambda group: -most[group[0]["task"]])
    return [_best_first(group) for group in groups]


def titled(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Tables with their titles: the task's name, its world if there are several, and what else tells it apart."""
    found = tables(rows)
    several = len({_world(table[0]) for table in found}) > 1
    parts = [[t[0]["task"], _arguments(t[0]), _world(t[0]), *(f"{k} {t[0][k]}" for k in _WORLD)] for t in found]
    titles = []
    for mine in parts:
        siblings = [other for other in parts if other[0] == mine[0]]
        title, same = [mine[0]], siblings
        for i, part in enumerate(mine):
            if (i == 2 and several) or (len(same) > 1 and any(other[i] != part for other in same)):
                title.append(part)
                same = [other for other in same if other[i] == part]
        titles.append(" ".join(title))
    return list(zip(titles, found, strict=True))


def _arguments(row: Row) -> str:
    return json.dumps(row["task_config"].get("init_args", row["task_config"]), ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _world(row: Row) -> str:
    """A generator in words: its name or file, and its options."""
    spec = row["world"]
    if not isinstance(spec, dict):
        return "" if spec is None else str(spec)
    options = {k: v for k, v in spec.items() if k not in ("path", "class_path", "init_args")}
    more = spec.get("init_args")
    options |= more if isinstance(more, dict) else {}
    name = str(spec.get("path", spec.get("class_path", "")))
    return ", ".join([name, *(f"{key} {value}" for key, value in options.items())])


def _best_first(rows: Sequence[Row]) -> list[Row]:
    found = list(columns(rows))

    def place(row: Row) -> tuple[Any, ...]:
        mine = [
            (found.index(key), column)
            for key, column in keys(row).items()
            if row[column.name] is not None and column.higher_is_better is not None
        ]
        if not mine:
            return len(found), 0.0, row["method"], row["record"]
        at, column = min(mine, key=lambda each: each[0])
        return at, -row[column.name] if column.higher_is_better else row[column.name], row["method"], row["record"]

    return sorted(rows, key=place)


def keys(row: Row) -> dict[Key, Column]:
    """A row's columns by key, so that comparable figures share a column."""
    common = {"n": str(row["n"]), **{key: row[key] for key in _WORLD}}
    return {
        (column.name, tuple(sorted((column.basis | common).items()))): column
        for column in map(records.column_of_json, row["columns"])
    }


def columns(rows: Sequence[Row]) -> dict[Key, tuple[Column, str]]:
    """The columns that any row fills, with their headings; a heading shows where its basis differs from the others."""
    filled = [{k: c for k, c in keys(row).items() if row[c.name] is not None} for row in rows]
    found = {key: column for each in filled for key, column in each.items()}
    order = in_order([column.name for column in each.values()] for each in filled)
    headings = {}
    for key in sorted(found, key=lambda key: (order.index(key[0]), found[key].heading, key[1])):
        siblings = [dict(other[1]) for other in found if found[other].heading == found[key].heading]
        apart = [
            f"{what} {short(value)}"
            for what, value in key[1]
            if any(other.get(what, value) != value for other in siblings)
        ]
        heading = found[key].heading + (f" [{', '.join(apart)}]" if apart else "")
        headings[key] = (found[key], heading)
    return headings


def hint(column: Column) -> str:
    """How to read a figure that has no better side; empty for any other."""
    if column.higher_is_better is not None:
        return ""
    return f"{column.heading} has no ranks, as neither more nor less is better: read it against the row {DATA}."


def best(rows: Sequence[Row], key: Key, column: Column) -> list[Row]:
    """The rows of rank 1 in a column; none where the figures belong to no samples, so that they cannot be paired."""
    return [row for row in rows if key in keys(row) and row["ranks"].get(column.name) == 1]


def refuted(row: Row) -> bool:
    """Whether a figure falls, beyond both intervals, when it is measured in another way."""
    for column in map(records.column_of_json, row["columns"]):
        first, second = (row["intervals"].get(name) for name in (column.checks, column.name))
        if first and second and None not in (first[0], second[1]) and second[1] < first[0]:
            return True
    return False


def reason(row: Row) -> str:
    """Why a row lacks figures, without the method's name."""
    return str(row["failure"]).removeprefix(f"method {row['method']}: ")


def in_order(lists: Iterable[Sequence[str]]) -> list[str]:
    """The names in several lists, each once; the lists' order is kept where they agree."""
    merged: list[str] = []
    for names in lists:
        at = 0
        for name in names:
            if name not in merged:
                merged.insert(at, name)
            at = merged.index(name) + 1
    return merged


def short(value: str) -> str:
    """A name with at most 8 digits of its fingerprint."""
    return re.sub(r"@([0-9a-f]{8})[0-9a-f]+", r"@\1", value)

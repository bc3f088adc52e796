"""Rows of the leaderboard, as JSON values: figures, ranks, and differences from the best."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.report import paired
from lcg_lightning.evaluation.report.columns import DATA, Key, Row, in_order, keys, tables
from lcg_lightning.evaluation.report.paired import Drawn
from lcg_lightning.evaluation.report.runs import Run, by_seeds


def build(runs: Sequence[Run]) -> list[Row]:
    """Rows by task, sorted by the task's first column, best first; see :func:`lcg_lightning.evaluation.leaderboard`."""
    names = in_order([column.name for column in run.record.columns] for run in runs)
    entries = by_seeds(runs)
    drawn = {id(entry): paired.draw(entry) for entry in entries}
    rows = [_row(entry, names) for entry in entries]
    figures = {id(row): drawn[id(entry)] for row, entry in zip(rows, entries, strict=True)}
    for table in tables(rows):
        _compare(table, figures)
    return [row for table in tables(rows) for row in table]


def _row(runs: Sequence[Run], names: Sequence[str]) -> Row:
    record, path = runs[0].record, runs[0].path
    basis = runs[0].basis
    columns = {column.name: column for column in record.columns}
    measured = {
        name: paired.over_seeds(runs, columns[name])
        for name in names
        if name in columns and all(name in run.record.metrics for run in runs)
    }
    values: Row = {name: measured[name].value if name in measured else None for name in names}
    spreads = {name: paired.spread(runs, name) for name in measured}
    fixed = {
        "task": record.task,
        "task_config": record.config.get("task", {}),
        "method": record.method,
        "method_config": record.config.get("method", {}),
        "scale": record.scale,
        "sampler": record.sampler,
        "n": record.n,
        "seeds": sorted({run.record.seed for run in runs}),
        "nfe": math.fsum(run.record.nfe for run in runs) / len(runs),
        "seconds": math.fsum(run.record.seconds for run in runs) / len(runs),
        "memory": {key: max(run.record.memory.get(key, 0) for run in runs) for key in record.memory},
        "ranked": record.ranked,
        "failure": record.failure,
        **{key: record.fingerprints[key][:8] for key in ("generator", "store", "asked")},
        **{key: _network(runs, key) for key in ("prior", "classifier")},
        "world": record.config.get("generator"),
        "judge": basis.get("judge"),
        "identity_network": basis.get("identity"),
        "features": basis.get("features"),
        "reference": basis.get("reference"),
        "record": path.as_posix(),
        "runs": [_single(run, list(measured)) for run in runs],
        "columns": records.columns_json(record),
        "intervals": {name: [_finite(e.low), _finite(e.high)] for name, e in measured.items()},
        "spreads": {name: s for name, s in spreads.items() if s is not None},
        "ranks": {},
        "differences": {},
    }
    if clash := sorted(values.keys() & fixed.keys()):
        raise UserError(f"{path}: a metric's column is called {clash[0]!r}, which a row has already; rename it")
    return values | fixed


def _single(run: Run, names: Iterable[str]) -> dict[str, Any]:
    """One run of a row: where it is, its seed and networks, its command line and its figures."""
    record = run.record
    networks = {key: value[:8] for key, value in record.fingerprints.items() if key in ("prior", "classifier")}
    figures = {name: record.metrics[name].value for name in names}
    about = {"record": run.path.as_posix(), "seed": record.seed, "seconds": record.seconds, "commit": record.commit}
    return about | {"command": record.command, "networks": networks, "figures": figures}


def _network(runs: Sequence[Run], key: str) -> str | None:
    """Eight digits of a network's fingerprint, or how many networks the runs have."""
    found = {run.record.fingerprints[key][:8] for run in runs if key in run.record.fingerprints}
    return min(found) if len(found) == 1 else f"{len(found)} trained" if found else None


def _compare(rows: Sequence[Row], figures: Mapping[int, Mapping[str, Drawn]]) -> None:
    """Enters ranks, and differences from the best, of the rows of one table.

    A row's rank in a column is one more than the number of rows that are better: by the paired bootstrap, the interval
    of the difference lies beyond 0. Only rows that compete and share samples with another one are ranked. Where neither
    more nor less is better, no row is, and the differences are from real data.
    """
    found: dict[Key, list[tuple[Row, Drawn, Column]]] = {}
    for row in rows:
        for key, column in keys(row).items():
            if column.name in figures[id(row)]:
                found.setdefault(key, []).append((row, figures[id(row)][column.name], column))
    for members in found.values():
        column = members[0][2]
        rivals = [member for member in members if member[0]["ranked"] and column.higher_is_better is not None]
        marks = [member for member in members if member[0]["method"] == DATA and column.higher_is_better is None]
        if not (rivals or marks):
            continue
        best = max(rivals or marks, key=lambda member: member[0][column.name] * (1 if column.higher_is_better else -1))
        for row, drawn, _ in members:
            against = [(each, paired.difference(each, drawn)) for rival, each, _ in rivals if rival is not row]
            known = [gap for _, gap in against if gap is not None]
            if row["ranked"] and known:
                row["ranks"][column.name] = 1 + sum(paired.better(gap, column) for gap in known)
            if row is not best[0] and (gap := paired.difference(drawn, best[1])):
                row["differences"][column.name] = _against(best[0], gap)


def _against(best: Row, gap: Estimate) -> dict[str, Any]:
    low, high = _finite(gap.low), _finite(gap.high)
    return {"from": best["method"], "record": best["record"], "value": gap.value, "low": low, "high": high}


def _finite(x: float) -> float | None:
    return None if x != x else x

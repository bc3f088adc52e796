"""The leaderboard as one HTML page that needs nothing else."""

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lcg_lightning.evaluation import plots, records
from lcg_lightning.evaluation.report import svg
from lcg_lightning.evaluation.report.columns import Row, best, columns, hint, keys, reason, titled
from lcg_lightning.evaluation.report.pictures import galleries, link
from lcg_lightning.evaluation.report.text import MISSING, NOTE, Said, described

Links = Callable[[str], str | None]
"""The path of a record -> the address of its samples' picture, if the page can show it."""


def page(folder: Path, rows: Sequence[Row], pictures: bool = True, out: Path | None = None) -> str:
    """The page of all rows: tables, trade-off curves, edits side by side, figures over curvature, commands.

    Args:
        folder: folder with the records, where edits are kept beside them.
        rows: the leaderboard's rows.
        pictures: whether edits are shown side by side.
        out: folder of the page, which shows the samples of records below it; by default ``folder``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lcg_lightning.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    links = partial(link, folder, folder if out is None else out)
    tasks = [
        _task(folder if pictures else None, links, title, members, f"t{i}")
        for i, (title, members) in enumerate(titled(rows))
    ]
    text: str = environment.get_template("page.html.j2").render(
        tasks=tasks, note=NOTE, curvature=_curvature(rows), runs=sum(len(row["runs"]) for row in rows), missing=MISSING
    )
    return text


def _task(folder: Path | None, links: Links, title: str, rows: Sequence[Row], name: str) -> dict[str, Any]:
    shared, about, *after = described(rows)
    del about["Method"]
    stated, spent, settings = (_words(rows, said) for said in (about, *after))
    figures = [
        {"heading": heading, "column": column, "hint": hint(column), "key": key, "best": best(rows, key, column)}
        for key, (column, heading) in columns(rows).items()
    ]
    curves = [plots.trade_off(rows, against) for against in (*plots.IDENTITY, *plots.FIDELITY)]
    return {
        "title": title,
        "id": name,
        "shared": shared,
        "stated": stated,
        "spent": spent,
        "settings": settings,
        "figures": figures,
        "lines": [
            {"row": row, "index": i, "cells": [_cell(row, each) for each in figures], **_details(row, links)}
            for i, row in enumerate(rows)
        ],
        "curves": [svg.inline(figure, f"{name}c{i}") for i, figure in enumerate(curves) if figure is not None],
        "galleries": [] if folder is None else galleries(folder, rows),
    }


def _words(rows: Sequence[Row], said: Said) -> dict[str, list[str]]:
    """Columns of words that any row fills, by heading."""
    cells = {heading: [of(row) for row in rows] for heading, of in said.items()}
    return {heading: column for heading, column in cells.items() if set(column) != {MISSING}}


def _cell(row: Row, figure: dict[str, Any]) -> dict[str, Any] | None:
    """One figure of a row, in words; None where the row has none."""
    column = figure["column"]
    value = row[column.name] if figure["key"] in keys(row) else None
    if value is None:
        return None
    low, high = row["intervals"][column.name]
    spread = row["spreads"].get(column.name)
    return {
        "number": value,
        "value": column.shown(value),
        "interval": "" if low is None or high is None else column.bounds(low, high),
        "spread": "" if spread is None else f"± {column.shown(spread)} over seeds",
        "rank": row["ranks"].get(column.name),
        "best": any(row is each for each in figure["best"]),
    }


def _details(row: Row, links: Links) -> dict[str, Any]:
    """What the page shows of a row when it is opened: commands, samples, single runs, differences from the best."""
    by_name = {column.name: column for column in map(records.column_of_json, row["columns"])}
    gaps = [
        f"{by_name[name].heading}: {column_of(by_name[name], gap)} from {gap['from']}"
        for name, gap in row["differences"].items()
    ]
    runs = [
        {
            **run,
            "line": shlex.join(run["command"]) if run["command"] else None,
            "picture": links(run["record"]),
            "shown": ", ".join(
                f"{by_name[name].heading} {by_name[name].shown(x)}" for name, x in run["figures"].items()
            ),
        }
        for run in row["runs"]
    ]
    memory = ", ".join(f"{value / 2**20:,.0f} MiB {_MEMORY.get(kind, kind)}" for kind, value in row["memory"].items())
    return {"reason": reason(row), "gaps": gaps, "runs": runs, "memory": memory}


_MEMORY = {"resident": "resident in the process at its peak", "cuda": "of the GPU allocated at the peak"}


def column_of(column: Any, gap: dict[str, Any]) -> str:
    """A difference with its sign and interval."""
    shown = f"{gap['value']:+.{column.digits}f}"
    return shown if gap["low"] is None else f"{shown} {column.bounds(gap['low'], gap['high'])}"


def _curvature(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Figures over the generator's curvature, one for each task that several exact worlds answer."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        spec = row["world"] if isinstance(row["world"], dict) else {}
        options = spec.get("init_args") if isinstance(spec.get("init_args"), dict) else spec
        found = (options or {}).get("curvature")
        if isinstance(found, int | float):
            groups.setdefault(f"{row['task']} {row['task_config']}", []).append({**row, "curvature": found})
    figures = []
    for i, members in enumerate(groups.values()):
        figure = plots.over_curvature(members)
        if figure is not None:
            figures.append({"task": members[0]["task"], "svg": svg.inline(figure, f"k{i}")})
    return figures

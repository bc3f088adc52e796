"""The leaderboard: every record below a folder, compared per task."""

import json
import re
from collections.abc import Collection
from pathlib import Path

from lcg_lightning.evaluation import plots
from lcg_lightning.evaluation.report import rows as _rows
from lcg_lightning.evaluation.report import text
from lcg_lightning.evaluation.report.columns import Row, titled
from lcg_lightning.evaluation.report.page import page
from lcg_lightning.evaluation.report.runs import find
from lcg_lightning.evaluation.report.text import print_leaderboard
from lcg_lightning.files import atomic

__all__ = ["build", "print_leaderboard", "write_leaderboard"]


def build(folder: Path) -> list[Row]:
    """Reads every record (``**/*.json``) below a folder; see :func:`lcg_lightning.evaluation.report.runs.find`.

    Runs that differ only in seeds make one row, see :func:`lcg_lightning.evaluation.report.runs.by_seeds`.

    Returns:
        Rows by task, sorted by the task's first column, best first. Each row has task, task_config, method,
        method_config, scale, sampler, n, seeds, nfe, seconds, memory, ranked, failure (None of a run that ended well);
        generator, store and asked (8 digits of their fingerprints), prior and classifier (likewise, or how many);
        world (the generator's description); judge, identity_network, features and reference (None if no figure depends
        on it); record (path below the folder); ``runs`` (record, seed, command and figures of each); ``columns``, the
        value of each column by name (None if not measured); and by name of measured columns ``intervals`` [low, high],
        ``spreads`` (standard deviation over several runs), ``ranks``, and ``differences`` from the best row, with
        intervals, in columns of per-sample figures.

    Raises:
        UserError: the folder is missing or holds no record, or a record has another version or impossible values.
    """
    return _rows.build(find(folder))


def write_leaderboard(folder: Path, out: Path | None = None, pictures: bool = True) -> list[Row]:
    """Writes ``leaderboard.md``, ``.html`` and ``.json`` (the rows) and, for each task with edits, a figure.

    Args:
        folder: folder with the records.
        out: folder to write into; by default ``folder``.
        pictures: whether the page shows the same sources edited by every method.

    Returns:
        The rows, as returned by :func:`build`.

    Raises:
        UserError: as for :func:`build`.
    """
    out = folder if out is None else out
    rows = build(folder)
    figures: dict[str, str] = {}
    for title, members in titled(rows):
        figure = _file_name(title, figures.values())
        if plots.accuracy_identity(members, out / figure, title=title):
            figures[title] = figure
    for name, content in {
        "leaderboard.md": text.markdown(rows, figures),
        "leaderboard.html": page(folder, rows, pictures, out),
        "leaderboard.json": json.dumps(rows, indent=2, allow_nan=False, ensure_ascii=False) + "\n",
    }.items():
        with atomic(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return rows


def _file_name(title: str, taken: Collection[str]) -> str:
    """The figure of a table: its title as a file name, with a number where titles differ only in what is left out."""
    short = f"accuracy_identity_{re.sub(r'[^A-Za-z0-9._-]+', '-', title)[:100]}"
    names = (f"{short}{number}.png" for number in ["", *(f"-{i}" for i in range(2, len(taken) + 2))])
    return next(name for name in names if name not in taken)

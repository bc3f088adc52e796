"""The leaderboard as Markdown and in the terminal."""

from collections.abc import Callable, Sequence
from functools import partial

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.report.columns import Row, best, columns, hint, keys, reason, refuted, short, titled

MISSING = "—"
NOTE = (
    "Brackets are 95 % intervals: Wilson's for shares of hits, the bootstrap over samples for other means, and the "
    "delete-one-group jackknife for distances between sets (FID, KID, energy). Rows of several runs are means over "
    "their seeds, and the intervals cover these too. Raised digits are ranks: one more than the number of rows that "
    "are better on the same samples, where the 95 % interval of the paired difference leaves out 0, with no correction "
    "for the number of comparisons; so rows can share a rank. Bold is the first rank. Methods that know the truth have "
    "none, nor do distances between sets, which cannot be paired, nor figures without a better side. Tables hold one "
    "generator, store and set of questions; figures with another judge, reference or number of samples have their own "
    "columns. NFE counts evaluations per sample of the network that a method integrates: a prior, a flow, or LACE's "
    "classifiers; s is the time to generate all n samples, in seconds; † marks a joint accuracy that falls under the "
    "second judge, beyond both intervals."
)
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def markdown(rows: Sequence[Row], figures: dict[str, str]) -> str:
    """All tables as Markdown.

    Args:
        rows: the leaderboard's rows.
        figures: file of the figure of each table that has one, by title.
    """
    parts = ["# Leaderboard", NOTE]
    for title, members in titled(rows):
        shared, headings, lines = table(members, bold=("**", "**"))
        parts += [f"## {_plain(title)}", *([f"All rows: {shared}."] if shared else []), _markdown(headings, lines)]
        parts += [_plain(f"{row['method']} failed: {reason(row)}") for row in members if row["failure"]]
        parts += [_plain(words) for column, _ in columns(members).values() if (words := hint(column))]
        if title in figures:
            parts.append(f"![Joint accuracy against identity, {_plain(title)}]({figures[title]})")
    return "\n\n".join(parts) + "\n"


def print_leaderboard(rows: Sequence[Row], console: Console | None = None) -> None:
    """Prints one table per task; terminals narrower than 120 columns show no intervals."""
    console = console or Console()
    for title, members in titled(rows):
        shared, headings, lines = table(members, intervals=console.width >= 120)
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title_justify="left")
        shown.title = Text.assemble(title, "   ", (shared, "dim"))
        for i, heading in enumerate(headings):
            words = heading.replace(" ", "\n")
            shown.add_column(Text(words), justify="right" if i else "left", no_wrap=i == 0, overflow="fold")
        for line in lines:
            shown.add_row(*map(Text, line))
        console.print(shown)
        for row in members:
            if row["failure"]:
                console.print(Text(f"{row['method']} failed: {_one_line(reason(row))}", "dim"))


def table(
    rows: Sequence[Row], intervals: bool = True, bold: tuple[str, str] = ("", "")
) -> tuple[str, list[str], list[list[str]]]:
    """A line with everything that a task's rows share, then headings and cells of the columns that any row fills."""
    words, about, cost, setting = described(rows)
    cells = {heading: [of(row) for row in rows] for heading, of in about.items()}
    for key, (column, heading) in columns(rows).items():
        top = best(rows, key, column)
        cells[heading] = [
            _measured(row, column, intervals, bold if row in top else ("", "")) if key in keys(row) else MISSING
            for row in rows
        ]
    cells |= {heading: [of(row) for row in rows] for heading, of in (cost | setting).items()}
    filled = {heading: column for heading, column in cells.items() if set(column) != {MISSING}}
    return words, list(filled), [list(line) for line in zip(*filled.values(), strict=True)]


Said = dict[str, Callable[[Row], str]]
"""Columns of words by heading."""


def described(rows: Sequence[Row]) -> tuple[str, Said, Said, Said]:
    """What a table's rows share, in one line; the columns before the figures, those of cost, and those of settings."""
    apart = ("sampler", "n", "seeds", "prior", "classifier")  # columns where rows differ; the others are in headings
    known = (*apart, "generator", "store", "judge", "identity_network", "reference")
    values = {key: {short(_stated(row, key)) for row in rows if row[key] is not None} for key in known}
    shared = {key: min(found) for key, found in values.items() if len(found) == 1}
    about: Said = {
        "Method": lambda row: f"{row['method']} †" if refuted(row) else str(row["method"]),
        "Scale": lambda row: MISSING if row["scale"] is None else f"{row['scale']:g}",
        **({"Runs": lambda row: str(len(row["runs"]))} if any(len(row["runs"]) > 1 for row in rows) else {}),
    }
    cost: Said = {"NFE": lambda row: f"{row['nfe']:.4g}", "s": lambda row: f"{row['seconds']:.1f}"}
    setting: Said = {_named(key): partial(_stated, key=key) for key in apart if key not in shared}
    words = ", ".join(f"{_named(key).replace('_', ' ')} {value}" for key, value in shared.items())
    return words, about, cost, setting


def _named(key: str) -> str:
    return "seed" if key == "seeds" else key


def _stated(row: Row, key: str) -> str:
    value = row[key]
    return MISSING if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _measured(row: Row, column: Column, intervals: bool, bold: tuple[str, str]) -> str:
    """A value, its rank and its interval, as far as it has them: ``0.912² [0.901, 0.923]``."""
    value = row[column.name]
    if value is None:
        return MISSING
    rank = str(row["ranks"].get(column.name, "")).translate(_RAISED)
    low, high = row["intervals"][column.name]
    known = intervals and low is not None and high is not None
    return f"{bold[0]}{column.shown(value)}{bold[1]}{rank}" + (f" {column.bounds(low, high)}" if known else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """One line of Markdown in which no HTML begins, such as a comment that hides the rest of the page."""
    return _one_line(text).replace("<", "&lt;")


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column flush left."""
    rule = [":--", *("--:" for _ in headings[1:])]
    cells = [headings, rule, *lines]
    return "\n".join(f"| {' | '.join(_plain(cell).replace('|', '&#124;') for cell in line)} |" for line in cells)

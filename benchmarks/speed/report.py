"""The table of speed, for the terminal and as Markdown."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

HEADINGS = ("row", "ours", "against", "ratio", "mark", "met", "note")
TITLES = {
    "sampling": "Guided sampling",
    "ode": "LACE's ODE",
    "training": "Training",
    "pictures": "Decoding and encoding",
    "evaluation": "One evaluation",
    "frechet": "Fréchet distance",
    "scaling": "Two processes against one",
    "memory": "Memory as stores grow",
    "startup": "Starting",
}


def table(part: str, result: dict[str, Any]) -> Table:
    """The rows of one part, for rich."""
    made = Table(*HEADINGS, title=f"{TITLES[part]} ({_machine(result['machine'])})")
    for row in result["rows"]:
        made.add_row(*_cells(row))
    return made


def markdown(found: dict[str, Any], parts: Sequence[str]) -> str:
    """All parts, and those that are not measured by name."""
    lines = ["# Speed", "", "How to read it: [benchmarks/speed](../speed/README.md).", ""]
    for part in parts:
        lines += [f"## {TITLES[part]}", ""]
        if part not in found:
            lines += [f"Not measured yet: `python -m benchmarks.speed --parts '[{part}]'`.", ""]
            continue
        lines += [_machine(found[part]["machine"]) + ".", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [_line(cell.replace("|", "\\|") for cell in _cells(row)) for row in found[part]["rows"]]
        lines.append("")
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any]) -> list[str]:
    least, most = row["at_least"], row["at_most"]
    mark = f"at least {least:g}" if least is not None else f"at most {most:g}" if most is not None else ""
    if row["ratio"] is None:
        return [row["name"], "", "", "not measured", mark, "", row["note"]]
    ours, theirs = (f"{name}, {_cost(cost, row['unit'])}" for name, cost in zip(
        (row["ours"], row["against"]), row["costs"], strict=True))  # fmt: skip
    met = {True: "yes", False: "no", None: ""}[row["met"]]
    ratio = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    return [row["name"], ours, theirs, ratio, mark, met, row["note"]]


def _cost(cost: float, unit: str) -> str:
    return f"{cost * 1e3:.3g} ms" if unit == "s" and cost < 1 else f"{cost:.3g} {unit}"


def _machine(about: dict[str, Any]) -> str:
    gpu = f", {about['gpu']}" if about["gpu"] else ""
    what = f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, {about['instructions']}{gpu}"
    return f"{what}; torch {about['libraries']['torch']}; {about['measured']}; load before {about['load before']}"

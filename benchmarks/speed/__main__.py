"""Speed, side by side: ``make bench``, or ``python -m benchmarks.speed [--parts '[sampling]']`` from the root.

Every part runs in a process of its own. Parts that are not run keep the figures that the file has for them.
"""

import json
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jsonargparse
from rich.console import Console

from benchmarks.speed.measure import measure
from benchmarks.speed.report import markdown, table
from lcg_lightning.files import atomic

PARTS = ("sampling", "ode", "training", "pictures", "evaluation", "frechet", "scaling", "memory", "startup")
RESULTS = Path(__file__).parents[1] / "results"


def main(parts: list[str] = list(PARTS), out: Path = RESULTS, tiny: bool = False) -> None:  # noqa: B006
    """Measure, print the table, and write speed.json and speed.md.

    Args:
        parts: what to measure.
        out: folder of the files.
        tiny: sizes at which nothing is worth reading, to see that all contestants run and agree.
    """
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"unknown part {sorted(unknown)[0]}; the parts are {', '.join(PARTS)}")
    file, failed = out / "speed.json", []
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for part in parts:
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                result = pool.submit(measure, part, tiny).result()
        except Exception:
            failed.append(part)
            traceback.print_exc()
            continue
        found[part] = result
        Console(width=160).print(table(part, result))
        ordered = {name: found[name] for name in PARTS if name in found}
        text = json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"
        for name, content in ((file, text), (out / "speed.md", markdown(ordered, PARTS))):
            with atomic(name) as temporary:
                temporary.write_text(content)
    if failed:
        raise SystemExit(f"failed, and keep their former figures: {', '.join(failed)}")


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=False)

"""``lcg leaderboard``: makes tables, figures and a page from records."""

import webbrowser
from pathlib import Path

from lcg_lightning.evaluation.leaderboard import print_leaderboard, write_leaderboard
from lcg_lightning.files import ensure_writable


def leaderboard(folder: Path, out: Path | None = None, pictures: bool = True, open: bool = False) -> None:
    """Write leaderboard.md, .html and .json and figures from the records below a folder, and print the tables.

    Args:
        folder: folder to search for records.
        out: folder to write into; by default the one with the records.
        pictures: whether the page shows the same sources edited by every method.
        open: whether to show the page in the browser.
    """
    place = folder if out is None else out
    ensure_writable(place)
    print_leaderboard(write_leaderboard(folder, place, pictures))
    print(f"Written: {', '.join(str(place / f'leaderboard.{kind}') for kind in ('md', 'html', 'json'))}")
    page = place / "leaderboard.html"
    if open and not webbrowser.open(page.resolve().as_uri()):
        print(f"No browser was found; open {page} in one.")

"""``lcg leaderboard``: makes tables and figures from records."""

from pathlib import Path

from lcg_lightning.evaluation.leaderboard import print_leaderboard, write_leaderboard
from lcg_lightning.files import ensure_writable


def leaderboard(folder: Path) -> None:
    """Write leaderboard.md, leaderboard.json and figures from the records below a folder, and print the tables.

    Args:
        folder: folder to search for records; the leaderboard is written there too.
    """
    ensure_writable(folder)
    print_leaderboard(write_leaderboard(folder))
    print(f"Written: {folder / 'leaderboard.md'}, {folder / 'leaderboard.json'}")

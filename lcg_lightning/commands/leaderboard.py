"""``lcg leaderboard``: records into tables and figures."""

from pathlib import Path

from lcg_lightning.evaluation.leaderboard import print_leaderboard, write_leaderboard
from lcg_lightning.files import ensure_writable


def leaderboard(folder: Path) -> None:
    """Write leaderboard.md, leaderboard.json and figures from the records below a folder, and print the tables.

    Args:
        folder: searched for records; also where the leaderboard is written.
    """
    ensure_writable(folder)
    print_leaderboard(write_leaderboard(folder))
    print(f"Written: {folder / 'leaderboard.md'}, {folder / 'leaderboard.json'}")

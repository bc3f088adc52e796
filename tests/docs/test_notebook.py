"""The notebook runs from its folder in a checkout after the demo, and shows what it has stored."""

import nbformat
from nbclient import NotebookClient

from tests.conftest import ROOT


def test_first_edit(world, tmp_path):
    for folder in ("docs", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "runs/demo").symlink_to(world.root)
    stored = nbformat.read(ROOT / "docs/first-edit.ipynb", 4)
    fresh = NotebookClient(
        stored.copy(), resources={"metadata": {"path": str(tmp_path / "docs")}}, timeout=500
    ).execute()
    shown = [[output.output_type for output in cell.get("outputs", ())] for cell in stored.cells]
    assert [[output.output_type for output in cell.get("outputs", ())] for cell in fresh.cells] == shown
    assert sum(map(len, shown)) > 6

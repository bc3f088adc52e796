"""Pages whose code blocks run in a folder with what the demo left, or in an empty one."""

import pytest
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.docs.pages import follow, section

INDEX = (ROOT / "docs/index.md").read_text()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A checkout in which nothing has been run."""
    for folder in ("configs", "benchmarks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkout(empty, world):
    """A checkout after the demo."""
    (empty / "runs").mkdir()
    (empty / "runs/demo").symlink_to(world.root)
    return empty


def test_first_picture(checkout):
    follow(section(INDEX, "Make the demo") + section(INDEX, "Sample and edit"))
    assert load_file("runs/samples/latents.safetensors")["latents"].shape == (16, 128)
    assert load_file("runs/edits/latents.safetensors")["latents"].shape == (16, 4, 128)


def test_the_demo_by_hand(empty):
    follow(section(INDEX, "The demo, one command at a time"))
    (row,) = [line for line in (empty / "runs/records/leaderboard.md").read_text().splitlines() if "| lcg " in line]
    assert row

"""Pages whose code blocks run in a folder with what the demo left, or in an empty one."""

import doctest
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lcg_lightning.cli import main
from lcg_lightning.data.store import LatentStore
from lcg_lightning.evaluation import records
from lcg_lightning.generators.load import load_generator
from tests.conftest import ROOT
from tests.docs.pages import blocks, commands, follow, section
from tests.generators.published import stylegan2_pickle

DOCS = {page.stem: page.read_text() for page in (ROOT / "docs").glob("*.md")}
HERE = {"index", "conditions", "data", "evaluation", "sweeps", "studio"}
ELSEWHERE = {"extending", "method", "recipes", "scaling"}


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


def test_every_page_with_code_is_run():
    assert {name for name, text in DOCS.items() if blocks(text)} == HERE | ELSEWHERE
    for text in DOCS.values():
        for language, code in blocks(text):
            assert language in ("sh", "bash", "python", "pycon", "yaml", "csv")
            assert language != "yaml" or yaml.safe_load(code)


def test_first_picture(checkout):
    follow(section(DOCS["index"], "Make the demo") + section(DOCS["index"], "Sample and edit"))
    assert load_file("runs/samples/latents.safetensors")["latents"].shape == (16, 128)
    assert load_file("runs/edits/latents.safetensors")["latents"].shape == (16, 4, 128)


def test_the_demo_by_hand(empty):
    follow(section(DOCS["index"], "The demo, one command at a time"))
    (row,) = json.loads((empty / "runs/records/leaderboard.json").read_text())
    assert (row["method"], row["task"], row["n"]) == ("lcg", "conditional-3", 16)


def test_conditions():
    assert doctest.testfile(str(ROOT / "docs/conditions.md"), module_relative=False).failed == 0


def test_readme(checkout):
    ((_, code),) = [block for block in blocks((ROOT / "README.md").read_text()) if block[0] == "python"]
    names = {}
    exec(code, names)
    assert names["images"].shape == (8, 3, 64, 64)


def test_data(checkout, world):
    (checkout / "data/ffhq-stylegan2").mkdir(parents=True)
    stylegan2_pickle(checkout / "data/ffhq-stylegan2/ffhq.pkl", size=64)
    (checkout / "faces").mkdir()
    for name in ("00000.png", "00001.png", "00002.png"):
        (checkout / "faces" / name).symlink_to(world.faces / "images" / name)
    follow(DOCS["data"])
    assert load_generator("w-plus.yaml").fingerprint == load_generator("runs/ffhq.safetensors").fingerprint
    store = LatentStore.open("runs/faces")
    rows = {
        name: row for part in map(store.split, store.sizes) for name, row in zip(part.ids, part.labels, strict=True)
    }
    torch.testing.assert_close(rows["00002"], torch.tensor([1.0, torch.nan, 1.0]), equal_nan=True)
    assert sum(LatentStore.open("runs/sampled").sizes.values()) == 200


def test_evaluation(checkout):
    follow(DOCS["evaluation"])
    found = {path.parent.name: records.read(path) for path in (checkout / "runs").rglob("record.json")}
    assert found["oracle"].metrics["acc"].value == pytest.approx(1)
    assert found["scale-4"].config["method"]["init_args"]["scale"] == 4
    assert {row["method"] for row in json.loads((checkout / "runs/records/leaderboard.json").read_text())} == {
        "lcg",
        "arithmetic",
    }


def test_sweeps(checkout):
    shutil.copytree(ROOT / "configs", checkout / "few")
    shipped = checkout / "few/sweeps/guidance-scale.yaml"
    shipped.write_text(shipped.read_text().replace("n=300", "n=16"))
    (checkout / "configs").unlink()
    (checkout / "few").rename("configs")
    follow(DOCS["sweeps"].replace("n=300", "n=16"))
    assert (checkout / "runs/sweeps/guidance-scale/sweep.png").exists()
    assert (checkout / "runs/sweeps/steps/sweep.png").exists()


def test_the_studios_command_is_read(checkout):
    ((name, *options),) = commands(DOCS["studio"])  # it would serve until it is stopped
    with pytest.raises(SystemExit, match="0"):
        main([name, *options, "--print_config"])

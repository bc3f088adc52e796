"""docs/extending.md: its files and commands, from an empty folder outside of the checkout."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lcg_lightning.cli import main
from lcg_lightning.data.images import ImageFiles
from lcg_lightning.data.store import LatentStore
from lcg_lightning.evaluation import records
from lcg_lightning.generators.load import load_generator
from tests.conftest import ROOT
from tests.docs.pages import commands, files, follow, section

PAGE = (ROOT / "docs/extending.md").read_text()
FILES = files(PAGE)


@pytest.fixture
def folder(tmp_path, monkeypatch, world):
    """A folder with the page's files and links to what the demo left."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(world.root)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_method_is_the_one_that_ships():
    assert FILES["retrieval.py"] == (ROOT / "lcg_lightning/methods/retrieval.py").read_text()


def test_a_method(folder, world):
    for words in commands(section(PAGE, "A method")):  # in new processes: in this one, a second Retrieval is ambiguous
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "lcg_lightning", *words], env=environment, check=True, timeout=300)
    train = LatentStore.open(world.store).split("train").latents
    for row in load_file("runs/retrieved/latents.safetensors")["latents"]:
        assert (train - row).abs().max(1).values.min() < 1e-4


def test_a_task(folder):
    follow(section(PAGE, "A task"))
    record = records.read(folder / "runs/records/there-and-back/record.json")
    assert record.task == "there-and-back"
    assert record.config["task"]["init_args"]["years"] == 15


def test_a_sampler(folder):
    follow(section(PAGE, "A sampler"))
    (command,) = commands(section(PAGE, "A sampler"))
    fine = [word.replace("plms.plms", "ddim").replace("runs/plms", "runs/fine") for word in command]
    assert main([*fine, "--method.steps=400"]) == 0
    ours, theirs = (load_file(f"runs/{name}/latents.safetensors")["latents"] for name in ("plms", "fine"))
    assert (ours - theirs).square().mean() < 0.01 * theirs.var()


def test_a_data_set(folder, world):
    rows = LatentStore.open(world.store).split("train")
    np.savez("faces.npz", latents=rows.latents.numpy(), Smiling=rows.labels[:, 1].numpy())
    follow(section(PAGE, "A data set"))
    store = LatentStore.open("runs/arrays")
    assert sum(store.sizes.values()) == len(rows.ids)
    assert store.schema.names == ("Smiling",)


def test_a_generator(folder, world):
    files = sorted((world.faces / "images").glob("*.png"))
    data = ImageFiles(files[:200], 64)
    images = torch.stack([data[i] for i in range(200)])
    mean = images.mean(0)
    _, _, components = torch.linalg.svd((images - mean).flatten(1), full_matrices=False)
    np.savez("faces.npz", mean=mean.numpy(), components=components[:20].unflatten(1, mean.shape).numpy())
    follow(section(PAGE, "A generator"))
    rows = LatentStore.open("runs/eigenfaces", load_generator("eigenfaces.yaml")).split("train")
    expected = (data[int(rows.ids[7])] - mean).flatten().numpy() @ components[:20].numpy().T
    np.testing.assert_allclose(rows.latents[7].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_a_metric(folder):
    follow(section(PAGE, "A metric"))
    record = records.read(folder / "runs/records/sharpness/record.json")
    assert 0 < record.metrics["sharpness"].low < record.metrics["sharpness"].high
    assert "Sharpness" in (folder / "runs/records/leaderboard.md").read_text()

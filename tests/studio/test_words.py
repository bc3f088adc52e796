"""The words of a result, pasted into a shell and run as Python, give the picture that the studio shows."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from lcg_lightning.cli import main
from lcg_lightning.methods.lcg import LatentClassifierGuidance
from lcg_lightning.studio import sources, words
from lcg_lightning.studio.compose import Sampling, composer
from lcg_lightning.studio.pictures import png
from lcg_lightning.studio.resources import load_resources
from lcg_lightning.studio.session import Session
from lcg_lightning.studio.words import Asked


@pytest.fixture(scope="module")
def resources(world):
    """Started in the folder of the world, by relative paths, with a method that is not the default one."""
    before = os.getcwd()
    os.chdir(world.root)
    method = LatentClassifierGuidance(Path("prior/last.ckpt"), Path("classifier/last.ckpt"), steps=6, interval=(0, 0.9))
    yield load_resources(world.store.relative_to(world.root), method)
    os.chdir(before)


def shell(command):
    """The arguments that a shell hands to lcg."""
    script = f'lcg() {{ printf "%s\\0" "$@"; }}\n{command}'
    return subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")[:-1]


def read(path):
    return np.asarray(Image.open(path))


def run(command, lines, folder, tmp_path):
    """The folders that a command and lines of Python leave."""
    try:
        assert main(shell(command)) == 0
        os.rename(folder, tmp_path / "command")
        exec(lines, {})
        os.rename(folder, tmp_path / "python")
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)
    return tmp_path / "command", tmp_path / "python"


@pytest.mark.parametrize(
    ("title", "scale", "condition"),
    [
        ("LCG", 3.5, "2*Smiling & ~(Hat | Bald) & Age=60"),
        ("Conditional arithmetic", 2.5, "Smiling & ~Hat"),
        ("Nearest training face", None, "Hat"),
    ],
)
def test_samples(title, scale, condition, resources, tmp_path):
    sampling = Sampling(resources, composer(resources, title, scale), Asked(condition, 6, 3, 4))
    shown = list(sampling.batches())[-1]
    command, python = run(
        words.sample_command(resources, sampling.method, sampling.asked),
        words.sample_python(resources, sampling.method, sampling.asked),
        "samples",
        tmp_path,
    )
    for folder in (command, python):
        assert len(shown) == len(list((folder / "images").iterdir())) == 6
        latents = load_file(folder / "latents.safetensors")["latents"]
        for i, sample in enumerate(shown):
            assert (sample.picture == read(folder / f"images/{i:05d}.png")).all()
            assert sample.latents.equal(latents[i])
    assert sampling.picture() == (command / "grid.png").read_bytes()


def edited(resources, source, title, changes):
    session = Session(resources, source)
    for name, value in {"Hat": True, "Age": 61.0, "Smiling": True, "Hat ": False}.items():
        values = dict(zip(resources.schema.names, session.values(), strict=True))
        session.set(list({**values, name.strip(): value}.values()))
    assert session.edits
    return resources.worker.do(session.result, resources.methods[title], changes)


@pytest.mark.parametrize(
    ("origin", "title"),
    [
        ("row", "LCG, plain sequential"),
        ("row", "Latent arithmetic"),
        ("row", "LCG"),
        ("drawn", "LCG"),
        ("uploaded", "LCG"),
    ],
)
def test_edits(origin, title, resources, tmp_path):
    do = resources.worker.do
    if origin == "uploaded":
        file = tmp_path / "it's me.jpg"
        Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 40).convert("RGB").save(file)
        source = do(sources.uploaded, resources, file)
        Path(words.UPLOAD).write_bytes(png(source.uploaded))
    else:
        source = do(getattr(sources, origin), resources, 5)
    changes = {"scale": 5.0, "tau": 0.5, "keep": False} if title == "LCG" else {}
    result = edited(resources, source, title, changes)
    given = (resources, result.method, result.edits, source.origin)
    command, python = run(words.edit_command(*given), words.edit_python(*given), "edit", tmp_path)
    for k, state in enumerate([source, *result.states]):
        assert (state.picture == read(command / f"images/00000-{k}.png")).all()
    assert load_file(command / "latents.safetensors")["latents"][0, -1].equal(result.last.latents[0])
    assert (result.last.picture == read(python / "images/00000.png")).all()
    assert load_file(python / "latents.safetensors")["latents"].equal(result.last.latents)


def test_a_face_that_the_prior_drew(resources, tmp_path, monkeypatch):
    monkeypatch.setattr(type(resources.generator), "can", lambda self, method: False)
    source = resources.worker.do(sources.drawn, resources, 3)
    assert source.origin.by_prior
    result = edited(resources, source, "LCG", {})
    given = (resources, result.method, result.edits, source.origin)
    assert shell(words.edit_command(*given)) == []  # a comment
    exec(words.edit_python(*given), {})
    os.rename("edit", tmp_path / "python")
    assert (result.last.picture == read(tmp_path / "python/images/00000.png")).all()

"""Draws the pictures of the pages from what ``make demo`` leaves: ``python docs/figures.py``, two minutes."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lcg_lightning.conditions import merge, met, parse
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.evaluation import figures
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.lcg import LatentClassifierGuidance

DEMO = Path("runs/demo")
OUT = Path(__file__).parent / "figures"
MEASURED = 300  # samples, or test rows to edit, behind each figure in a caption
STORE = LatentStore.open(DEMO / "store")
SPACE = STORE.space(load_generator("synthfaces"))
JUDGE = load_attribute_judge("synthfaces").select(STORE.schema)
IDENTITY = load_identity_network("synthfaces")
TEST = STORE.split("test")
SOURCES = SPACE.standardize(TEST.latents[:MEASURED])  # (N, D)
PLAIN = [STORE.schema.index(name) for name in ("Smiling", "Eyeglasses", "Hat")]
SHOWN = (TEST.labels[:MEASURED, PLAIN] == 0).all(1).nonzero()[:4, 0]
"""Sources to show: those of which most is left to ask."""


def lcg(**options: Any) -> LatentClassifierGuidance:
    method = LatentClassifierGuidance(DEMO / "prior/last.ckpt", DEMO / "classifier/last.ckpt", **options)
    method.prepare(STORE, SPACE)
    return method.eval()


def samples(condition: str, n: int, **options: Any) -> Tensor:
    """Images (n, 3, S, S) of a condition."""
    noise = SampleNoise(seed=0, index=torch.arange(n), dim=SPACE.dim)
    return SPACE.decode(lcg(**options).generate(parse(condition, STORE.schema), noise))


def edits(conditions: Sequence[str], sources: Tensor, **options: Any) -> Tensor:
    """Images (N, S + 1, 3, S, S) of sources (N, D) and of each of their edits."""
    trees = [parse(text, STORE.schema) for text in conditions]
    steps = [Edit(tree, merge(trees[: i + 1])) for i, tree in enumerate(trees)]
    return torch.stack([SPACE.decode(z) for z in (sources, *lcg(**options).edit(sources, steps))], 1)


def accuracy(condition: str, images: Tensor) -> float:
    """Share of images (N, 3, S, S) that meet a condition, by the attribute judge."""
    tree = parse(condition, STORE.schema)
    return met(tree, STORE.schema.predict(JUDGE(images)), STORE.schema).double().mean().item()


def save(rows: Sequence[tuple[Tensor, Sequence[str]]], name: str) -> None:
    """Writes strips as a WebP file."""
    with tempfile.TemporaryDirectory() as folder:
        figures.strips(rows, Path(folder) / "strips.png")
        Image.open(Path(folder) / "strips.png").convert("RGB").save(OUT / f"{name}.webp", quality=85, method=6)


def columns(found: Mapping[str, Tensor], name: str) -> None:
    """Pictures (R, 3, S, S) below each caption."""
    save([(row, list(found)) for row in torch.stack(list(found.values()), 1)], name)


def faces() -> None:
    asked = ["Smiling", "Yaw=15", "Eyeglasses", "Age=75", "Hat"]
    strips = [(strip, ["source", *asked]) for strip in edits(asked, SOURCES[SHOWN])]
    composed = ("Beard & Hat & Smiling", "Bald & Eyeglasses & ~Smiling & Age=30", "(Hat | Gray_Hair) & Yaw=-20")
    grids = [(samples(text, 6), [text, *[""] * 5]) for text in composed]
    (first, captions), *more = strips
    save([(first, captions), *((strip, [""] * 6) for strip, _ in more), *grids], "faces")


def conditions() -> None:
    texts = ("Smiling", "~Smiling", "Age=75", "Beard & Hat", "Hat | Bald", "~(Hat | Bald) & Yaw=-20")
    columns({text: samples(text, 3) for text in texts}, "conditions")


def scales() -> None:
    text, found = "Smiling & Hat & Age=70", {}
    for scale in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0):
        images = samples(text, MEASURED, scale=scale)
        found[f"scale {scale:g}: {accuracy(text, images):.0%} right"] = images[:3]
    columns(found, "scale")


def starts() -> None:
    text = "Smiling & Eyeglasses & Age=70"
    source = SPACE.decode(SOURCES)
    found = {"source": source[SHOWN]}
    for label, options in {
        "default": {},
        "keep: false": {"keep": False},
        "start: filtered, scale 2, tau 0.6": {"start": "filtered", "scale": 2.0, "tau": 0.6},
        "start: source, scale 3, tau 0.6": {"start": "source", "scale": 3.0, "tau": 0.6},
        "start: source, scale 3, tau 1.2": {"start": "source", "scale": 3.0, "tau": 1.2},
        "start: source, scale 3, tau 2.4": {"start": "source", "scale": 3.0, "tau": 2.4},
    }.items():
        images = edits([text], SOURCES, **options)[:, -1]
        identity = cosine_similarity(IDENTITY.embed(source), IDENTITY.embed(images)).mean()
        found[f"{label}: {accuracy(text, images):.0%} right, identity {identity:.2f}"] = images[SHOWN]
    columns(found, "edits")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    with torch.no_grad():
        for draw in (faces, conditions, scales, starts):
            draw()

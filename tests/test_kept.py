"""What a process keeps: the same object for the same key, inside the block alone."""

import pytest
import torch

from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.errors import UserError
from lcg_lightning.kept import loaded_once, once
from lcg_lightning.synthfaces.faces import SCHEMA


def test_things_are_made_once_for_each_key_and_only_inside_the_block():
    made = []

    def make(key):
        return once(["thing", key], lambda: made.append(key) or object())

    assert make(1) is not make(1)
    with loaded_once():
        assert make(1) is make(1)
        assert make(2) is not make(1)
    assert made == [1, 1, 1, 2]


def test_stores_of_equal_paths_are_read_once_and_again_after_the_block(tmp_path):
    def write(name, value):
        rows = torch.full((4, 3), value) + torch.arange(4.0)[:, None]
        labels = torch.full((4, len(SCHEMA)), float("nan"))
        labels[:, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])
        return write_store(tmp_path / name, {"train": Split(rows, labels, list("abcd"))}, SCHEMA, "g", {})

    path, other = write("s", 1.0), write("t", 2.0)
    with loaded_once():
        first = LatentStore.open(path)
        assert LatentStore.open(path) is first
        assert LatentStore.open(other).split("train").latents[0, 0] == 2
        assert first.split("train").latents is LatentStore.open(path).split("train").latents
    (path / "train.safetensors").write_bytes((other / "train.safetensors").read_bytes())
    with loaded_once(), pytest.raises(UserError, match="not the file that was written"):
        LatentStore.open(path)

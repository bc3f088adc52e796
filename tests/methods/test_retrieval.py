"""Retrieval against a search by hand, over rows whose labels are known."""

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import merge, parse
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.diffusion.noise import SampleNoise, sample_noise
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.retrieval import Retrieval

SCHEMA = AttributeSchema((Attribute("Smiling"), Attribute("Age", "continuous", low=0, high=100)))


@pytest.fixture
def method(tmp_path):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(400, 6, generator=generator) * 2 + 1
    labels = torch.stack([(latents[:, 0] > 1).float(), 10 * (latents[:, 1] + 4).clamp(0, 10)], 1)
    labels[::7, 0] = torch.nan
    store = write_store(
        tmp_path / "store", {"train": Split(latents, labels, [str(i) for i in range(400)])}, SCHEMA, "f" * 16, {}
    )
    store = LatentStore.open(store)
    method = Retrieval()
    method.prepare(store, LatentSpace(None, store.mean, store.std))
    return method


def by_hand(method, point, smiling, age):
    rows = [
        (float((z - point).norm()), i)
        for i, (z, (s, a)) in enumerate(zip(method.latents, method.labels.tolist(), strict=True))
        if s == smiling and abs(a - age) <= 10
    ]
    return method.latents[min(rows)[1]]


def test_nearest_row_that_meets_all_that_is_asked(method):
    found = method.generate(parse("~Smiling & Age=55", SCHEMA), SampleNoise(3, torch.arange(5), 6))
    points = sample_noise(3, range(5), (6,))
    torch.testing.assert_close(found, torch.stack([by_hand(method, p, 0.0, 55) for p in points]))


def test_edits_start_from_the_source_and_keep_what_was_asked(method):
    source = method.latents[:4] + 0.01
    conditions = [parse(text, SCHEMA) for text in ("Smiling", "Age=80", "~Smiling")]
    steps = [Edit(c, merge(conditions[: k + 1])) for k, c in enumerate(conditions)]
    after = method.edit(source, steps)
    torch.testing.assert_close(after[1], torch.stack([by_hand(method, p, 1.0, 80) for p in source]))
    torch.testing.assert_close(after[2], torch.stack([by_hand(method, p, 0.0, 80) for p in source]))


def test_what_no_row_shows_falls_back_to_the_rows_that_miss_least(method):
    keep = ~((method.labels[:, 0] == 1) & (method.labels[:, 1] > 45))
    method.latents, method.labels = method.latents[keep], method.labels[keep]
    (found,) = method.edit(method.latents[:1], [Edit(None, parse("Smiling & Age=60", SCHEMA))])
    row = int((method.latents == found).all(1).nonzero()[0])
    assert SCHEMA.met(method.labels[row], torch.tensor([1.0, 60.0])).sum() == 1

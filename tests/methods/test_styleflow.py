"""StyleFlow with a flow in closed form: z = noise + shift of the labels."""

from pathlib import Path

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import conjunction, merge, parse
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.styleflow import StyleFlow, replaced_rows

SCHEMA = AttributeSchema((Attribute("Hat"), Attribute("Smiling"), Attribute("Age", "continuous", low=0, high=100)))
SHIFT = torch.tensor([[1.0, 0, 0, 0, 2, 0], [0, 1, 0, 0, 0, 3], [0, 0, 1, 1, 0, 0]])


class Shifting:
    hparams = {"latent_dim": 6}  # noqa: RUF012 - a network's

    def to_latents(self, noise, labels):
        return noise + SCHEMA.unit(labels) @ SHIFT, torch.full((len(noise),), 10.0)

    def to_noise(self, z, labels):
        return z - SCHEMA.unit(labels) @ SHIFT, torch.full((len(z),), 4.0)


def reading(z):
    """Outputs for labels that a source shows: Hat where the first number is above 0.5, never smiling, of age 40."""
    return torch.stack([z[:, 0] - 0.5, -torch.ones(len(z)), torch.full((len(z),), 0.4), torch.zeros(len(z))], 1)


@pytest.fixture
def method(tmp_path):
    labels = torch.tensor([[1.0, 0, 10], [1, 1, 20], [0, 0, 30], [0, 1, 70]]).repeat(5, 1)
    rows = Split(torch.randn(20, 2, 3), labels, [str(i) for i in range(20)])
    store = LatentStore.open(write_store(tmp_path / "store", {"train": rows}, SCHEMA, "f" * 16, {}))

    def made(layers=None, classifier=Path("none")):
        made = StyleFlow(Path("none"), classifier, layers)
        made.flow, made.schema, made.labels = Shifting(), SCHEMA, labels
        made.kept = replaced_rows(layers, store)
        if classifier is not None:
            made.classifier = reading
        return made

    return made


def steps(*texts):
    conditions = [parse(text, SCHEMA) for text in texts]
    return [Edit(c, merge(conditions[: k + 1])) for k, c in enumerate(conditions)]


def test_an_edit_moves_by_the_labels_that_change(method):
    z = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    flow = method()
    first, second, third = flow.edit(z, steps("Smiling", "Hat & Age=60", "~Smiling"))
    hat = (z[:, 0] > 0.5).float()[:, None]
    torch.testing.assert_close(first, z + SHIFT[1])
    torch.testing.assert_close(second, z + SHIFT[1] + (1 - hat) * SHIFT[0] + 0.2 * SHIFT[2])
    torch.testing.assert_close(third, second - SHIFT[1])
    assert flow.edit_nfe == pytest.approx((4 + 3 * 10) / 3)
    with pytest.raises(UserError, match="give the checkpoint of a classifier"):
        method(classifier=None).edit(z, steps("Hat"))


def test_layers_keep_all_other_rows(method):
    z = torch.zeros(2, 6)
    flow = method({"Hat": [1], "smiling": [0]})
    asked = torch.tensor([[1.0, torch.nan, torch.nan], [torch.nan, 1.0, torch.nan]])
    one = conjunction(asked, SCHEMA)
    (edited,) = flow.edit(z, [Edit(one, one)])
    assert edited.tolist() == [[0, 0, 0, 0, 2, 0], [0, 1, 0, 0, 0, 0]]
    first, second = flow.edit(z[:1], steps("Hat", "Age=90"))
    torch.testing.assert_close(first[0], torch.tensor([0.0, 0, 0, 0, 2, 0]))
    torch.testing.assert_close(second[0], torch.tensor([1.0, 0, 0.5, 0.5, 2, 0]))
    for layers, message in (({"Hat": [2]}, "give some of 0 to 1"), ({"Hut": [0]}, "did you mean Hat")):
        with pytest.raises(UserError, match=message):
            method(layers)


def test_generation_fills_in_labels_of_rows_that_meet_the_targets(method):
    noise = SampleNoise(0, torch.arange(200), 6)
    z = method().generate(parse("Hat", SCHEMA), noise)
    used = (z - noise(0)) @ torch.linalg.pinv(SHIFT)
    found = SCHEMA.natural(used)
    torch.testing.assert_close(found[:, 0], torch.ones(200), rtol=0, atol=1e-4)
    pairs = {(round(s), round(a)) for s, a in found[:, 1:].tolist()}
    assert pairs == {(0, 10), (1, 20)}
    part = method().generate(parse("Hat", SCHEMA), SampleNoise(0, torch.arange(50, 90), 6))
    torch.testing.assert_close(part, z[50:90])
    never = method().generate(parse("Hat & Age=70", SCHEMA), noise)
    found = SCHEMA.natural((never - noise(0)) @ torch.linalg.pinv(SHIFT))
    torch.testing.assert_close(found[:, [0, 2]], torch.tensor([1.0, 70.0]).expand(200, 2), rtol=0, atol=1e-3)


def test_a_choice_is_refused(method):
    with pytest.raises(UserError, match=r"method styleflow: it takes targets .*leaves a choice"):
        method().generate(parse("Hat | Smiling", SCHEMA), SampleNoise(0, torch.arange(2), 6))

"""Who reads results outside an evaluation, and what."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import parse
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.evaluation.reading import find_reader
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.generators.load import load_generator
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.clean import CleanClassifier
from tests.evaluation import exact, small

NO_NETWORK = SimpleNamespace(name="plain")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A store of sampled faces, its space, and the images of its test rows."""
    store = LatentStore.open(small.write(tmp_path_factory.mktemp("small") / "store"))
    space = store.space(load_generator("synthfaces"))
    z = space.standardize(store.split("test").latents)
    return store, space, z, space.decode(z)


def test_the_zoo_reads_its_own_faces(faces):
    store, space, z, images = faces
    reader = find_reader("synthfaces", store, space, NO_NETWORK)
    assert reader.name == "synthfaces-attributes"
    outputs = reader.outputs(z, images)
    smiling, hat = (outputs[:, store.schema.head(name)][:, 0].sigmoid() for name in ("Smiling", "Hat"))
    chance, hits = reader.read(parse("3*Smiling & ~Hat", store.schema), z, images)
    torch.testing.assert_close(chance, smiling * (1 - hat))
    assert torch.equal(hits, (smiling > 0.5) & (hat < 0.5))
    assert 0 < hits.sum() < len(hits)
    cosine = reader.likeness(images, images.roll(1, 0))
    torch.testing.assert_close(reader.likeness(images, images), torch.ones(len(images)))
    assert (cosine < 0.9).all()


def test_numbers_count_within_a_tenth_of_their_range(faces):
    store, space, z, images = faces
    reader = find_reader("synthfaces", store, space, NO_NETWORK)
    age = store.schema["Age"]
    outputs = reader.outputs(z, images)[:, store.schema.head("Age")]
    read = torch.distributions.Normal(outputs[:, 0], (outputs[:, 1].clamp(min=-6) / 2).exp())
    target = (50 - age.low) / (age.high - age.low)
    chance, hits = reader.read(parse("Age=50", store.schema), z, images)
    torch.testing.assert_close(chance, read.cdf(torch.tensor(target + 0.1)) - read.cdf(torch.tensor(target - 0.1)))
    assert torch.equal(hits, (outputs[:, 0] - target).abs() <= 0.1)


def test_the_exact_worlds_truth_reads_it(tmp_path):
    world = ExactWorld(0.3)
    store = LatentStore.open(exact.write(tmp_path / "store", {"train": 20, "test": 12}))
    latents, labels, _ = store.split("test")
    space = store.space(world)
    reader = find_reader(exact.WORLD, store, space, NO_NETWORK)
    chance, hits = reader.read(parse("Smiling", store.schema), space.standardize(latents), torch.zeros(12, 3, 8, 8))
    smiling = labels[:, store.schema.index("Smiling")] == 1
    assert reader.name == "the truth"
    assert torch.equal(hits, smiling)
    assert torch.equal(chance > 0.99, smiling)


def test_other_attributes_are_left_to_the_methods_classifier(faces, tmp_path):
    _, space, z, images = faces
    schema = AttributeSchema((Attribute("Freckles"),))
    rows = Split(space.unstandardize(z), torch.arange(10.0)[:, None] % 2, list("abcdefghij"))
    store = LatentStore.open(write_store(tmp_path / "store", {"train": rows}, schema, space.generator.fingerprint, {}))
    space = replace(space, mean=store.mean, std=store.std)
    assert find_reader("synthfaces", store, space, NO_NETWORK) is None
    classifier = LatentClassifier(space.dim, schema.to_json(), hidden=8, layers=2).eval()
    for weight in classifier.ema.parameters():
        torch.nn.init.normal_(weight)
    reader = find_reader("synthfaces", store, space, SimpleNamespace(name="lcg", classifier=classifier))
    with torch.no_grad():
        chance, _ = reader.read(parse("~Freckles", schema), z, images)
        expected = 1 - classifier(z, torch.zeros(10)).sigmoid()[:, 0]
    torch.testing.assert_close(chance, expected)
    assert reader.name == "lcg's own classifier"
    assert reader.identity is not None
    clean = CleanClassifier(space.dim, schema.to_json(), (8,)).eval()
    reader = find_reader("synthfaces", store, space, SimpleNamespace(name="lace", classifier=clean))
    with torch.no_grad():
        chance, _ = reader.read(parse("Freckles", schema), z, images)
        torch.testing.assert_close(chance, clean(z).sigmoid()[:, 0])

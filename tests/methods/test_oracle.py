"""The oracle's answers against the truth of the faces, in the exact world and through an encoder."""

import pytest
import torch
from safetensors.torch import load_file

from lcg_lightning.commands.render import render as render_to_disk
from lcg_lightning.conditions import conjunction, merge, parse
from lcg_lightning.data.annotated import AnnotatedLatents
from lcg_lightning.data.encode import store as write_rows
from lcg_lightning.data.sources.exact import ExactFaces
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.oracle import Oracle
from lcg_lightning.synthfaces.faces import SCHEMA, Faces, faces_from_z, held_out
from lcg_lightning.synthfaces.renderer import render


class Pixels(Generator):
    """Latents are small pictures: what is encoded can be compared with what should have been rendered."""

    latent_shape = (3, 16, 16)
    image_size = 64

    def encode(self, images):
        return torch.nn.functional.avg_pool2d(images, 4)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    world = ExactWorld(0.4)
    path = tmp_path_factory.mktemp("exact") / "store"
    return world, LatentStore.open(write_rows(ExactFaces(600, 0, 50).rows(world), world, path))


def prepared(oracle, store, generator):
    oracle.prepare(store, space := store.space(generator))
    return oracle, space


def steps(*texts):
    conditions = [parse(text, SCHEMA) for text in texts]
    return [Edit(c, merge(conditions[: k + 1])) for k, c in enumerate(conditions)]


def test_exact_rows_leave_the_held_out_to_the_test_split(exact):
    _, store = exact
    assert not held_out(store.split("train").labels).any()
    assert held_out(store.split("test").labels).any()


def test_generation_in_the_exact_world_answers_every_sample(exact):
    world, store = exact
    oracle, space = prepared(Oracle(), store, world)
    asked = torch.full((64, len(SCHEMA)), torch.nan)
    asked[:, SCHEMA.index("Age")] = torch.linspace(20, 78, 64)
    asked[:, SCHEMA.index("Eyeglasses")] = torch.arange(64) % 2
    asked[::3, SCHEMA.index("Hat")] = 1
    condition = conjunction(asked, SCHEMA)
    z = oracle.generate(condition, SampleNoise(0, torch.arange(64), space.dim))
    labels = world.labels(space.unstandardize(z))
    known = ~asked.isnan()
    torch.testing.assert_close(labels[known], asked[known], rtol=0, atol=1e-2)
    assert labels[:, SCHEMA.index("Smiling")].unique().numel() == 2  # what is not asked is drawn
    part = oracle.generate(conjunction(asked[40:], SCHEMA), SampleNoise(0, torch.arange(40, 64), space.dim))
    torch.testing.assert_close(part, z[40:])  # a sample is its own, whatever the batch


def test_edits_in_the_exact_world_are_its_counterfactuals(exact):
    world, store = exact
    oracle, space = prepared(Oracle(), store, world)
    source = space.standardize(store.split("test").latents)
    before = world.faces(space.unstandardize(source))
    first, second = oracle.edit(source, steps("Smiling", "Yaw=-20"))
    after = world.faces(space.unstandardize(second))
    assert (after.labels[:, SCHEMA.index("Smiling")] == 1).all()
    assert (after.labels[:, SCHEMA.index("Yaw")] + 20).abs().max() < 1e-2
    others = [i for i, name in enumerate(SCHEMA.names) if name not in ("Smiling", "Yaw")]
    torch.testing.assert_close(after.labels[:, others], before.labels[:, others], rtol=0, atol=1e-2)
    torch.testing.assert_close(after.identity, before.identity, rtol=0, atol=1e-3)
    yaw = world.labels(space.unstandardize(first))[:, SCHEMA.index("Yaw")]
    torch.testing.assert_close(yaw, before.labels[:, SCHEMA.index("Yaw")], rtol=0, atol=1e-2)


def test_with_an_encoder_edits_are_renders_of_the_same_face(tmp_path):
    folder = render_to_disk(tmp_path / "faces", train=4, val=0, test=60, seed=1)
    generator = Pixels()
    faces = faces_from_z(load_file(folder / "faces.safetensors")["z"])
    rows = AnnotatedLatents(
        [f"{i:05d}" for i in range(64)],
        faces.labels,
        SCHEMA,
        ["train"] * 4 + ["test"] * 60,
        latents=generator.encode(render(faces)),
    )
    store = LatentStore.open(write_rows(rows, generator, tmp_path / "store"))
    oracle, space = prepared(Oracle(folder), store, generator)
    source = space.standardize(store.split("test").latents)
    picked = torch.tensor([3, 0, 7, *range(20, 60)])
    (answer,) = oracle.edit(source[picked], steps("Hat & Age=70"))
    labels = faces.labels[4:][picked].clone()
    labels[:, SCHEMA.index("Hat")], labels[:, SCHEMA.index("Age")] = 1, 70
    wanted = generator.encode(render(Faces(faces.identity[4:][picked], faces.scene[4:][picked], labels)))
    torch.testing.assert_close(space.unstandardize(answer), wanted, rtol=0, atol=1e-3)
    oracle.edit(source[picked] + 1e-6, steps("Hat"))  # rounding on the way does not make it another face
    with pytest.raises(UserError, match="none of the store's test rows"):
        oracle.edit(source + 1, steps("Hat"))
    with pytest.raises(UserError, match="give the folder"):
        prepared(Oracle(), store, generator)[0].edit(source, steps("Hat"))
    with pytest.raises(UserError, match="cannot be read as the faces"):
        prepared(Oracle(tmp_path), store, generator)


def test_what_never_occurs_is_refused(exact, monkeypatch):
    world, store = exact
    oracle, space = prepared(Oracle(), store, world)
    monkeypatch.setattr("lcg_lightning.generators.conditional.MOST_DRAWS", 50)
    with pytest.raises(UserError, match=r"no face drawn for sample 7 .*too rare"):
        oracle.generate(parse("Gray_Hair & Age=20", SCHEMA), SampleNoise(0, torch.tensor([7, 8]), space.dim))

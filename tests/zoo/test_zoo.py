"""The shipped networks reach, on renders no one has seen, what their cards say and what the project needs."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lcg_lightning.cli import main
from lcg_lightning.commands.export_zoo import EDITED, edited, export_zoo
from lcg_lightning.errors import UserError
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network
from lcg_lightning.recipes.losses import laplacian_energy
from lcg_lightning.synthfaces.faces import SCHEMA, Faces, faces_from_z, independent_faces, sample_z
from lcg_lightning.synthfaces.renderer import render
from lcg_lightning.zoo.shelf import WEIGHTS
from tests.conftest import ROOT

N = 300
Z = sample_z(N, 2**33 + 7)


@pytest.fixture(scope="module")
def faces():
    return faces_from_z(Z)


@pytest.fixture(scope="module")
def images(faces):
    return render(faces)


@pytest.fixture(scope="module")
def rebuilt(images):
    generator = load_generator()
    with torch.inference_mode():
        return torch.cat([generator.decode(generator.encode(part)) for part in images.split(100)])


@pytest.fixture(scope="module")
def mapped():
    generator = load_generator()
    with torch.inference_mode():
        return torch.cat([generator.decode(generator.network.mapping(part)) for part in Z.split(100)])


def right(images, faces, judge="synthfaces"):
    """Share of images whose attribute is read right: equal, or within a tenth of its range."""
    with torch.inference_mode():
        outputs = load_attribute_judge(judge)(images)
    return dict(
        zip(SCHEMA.names, SCHEMA.met(SCHEMA.predict(outputs), faces.labels).float().mean(0).tolist(), strict=True)
    )


def worst_binary(found):
    return min(found[a.name] for a in SCHEMA if a.kind == "binary")


@pytest.mark.parametrize("judge", ["synthfaces", "synthfaces-2"])
def test_judges_know_clean_renders(images, faces, judge):
    found = right(images, faces, judge)
    assert worst_binary(found) >= 0.99
    assert min(found["Age"], found["Yaw"]) >= 0.97


@pytest.mark.parametrize("judge", ["synthfaces", "synthfaces-2"])
def test_reconstructions_keep_attributes(rebuilt, faces, judge):
    found = right(rebuilt, faces, judge)
    assert worst_binary(found) >= 0.99, found
    assert min(found["Age"], found["Yaw"]) >= 0.92, found


@pytest.mark.parametrize("judge", ["synthfaces", "synthfaces-2"])
def test_mapped_z_shows_the_face_that_it_stands_for(mapped, faces, judge):
    found = right(mapped, faces, judge)
    assert worst_binary(found) >= 0.96, found
    assert min(found["Age"], found["Yaw"]) >= 0.9, found


def test_pictures_are_sharp(images, rebuilt, mapped):
    energy = laplacian_energy(images).mean()
    assert laplacian_energy(rebuilt).mean() > 0.6 * energy
    assert laplacian_energy(mapped).mean() > 0.55 * energy


def test_perfect_edits_come_through_encoder_and_generator(faces):
    """Labels changed in the renderer, encoded and decoded: the ceiling of the editing task."""
    asked, generator = edited(faces), load_generator()
    columns = [SCHEMA.index(name) for name in EDITED]
    with torch.inference_mode():
        images = torch.cat([generator.decode(generator.encode(part)) for part in render(asked).split(100)])
        got = SCHEMA.predict(load_attribute_judge()(images))
    assert SCHEMA.met(got, asked.labels).float()[:, columns].amin(1).mean() >= 0.93


@pytest.mark.parametrize("who", ["synthfaces", "synthfaces-2"])
def test_identity_survives_reconstruction_and_is_not_shared(images, rebuilt, who):
    network = load_identity_network(who)
    with torch.inference_mode():
        e, r = (F.normalize(network.embed(x), dim=1) for x in (images, rebuilt))
    assert (e * r).sum(1).mean() > 0.9
    assert (e * r.roll(1, 0)).sum(1).mean() < 0.2


def test_the_exact_world_encodes_with_the_same_encoder(images, faces):
    world = load_generator("synthfaces-exact", curvature=0.2)
    with torch.inference_mode():
        found = world.faces(world.encode(images))
    assert (
        worst_binary(
            dict(zip(SCHEMA.names, SCHEMA.met(found.labels, faces.labels).float().mean(0).tolist(), strict=True))
        )
        > 0.97
    )
    assert (found.identity - faces.identity).abs().mean() < 0.1  # 1/3 for strangers


def test_identity_is_verified_across_attributes_and_scenes(images, faces):
    others = independent_faces(sample_z(N, 8))
    again = render(Faces(faces.identity, others.scene, others.labels))
    who = load_identity_network()
    with torch.inference_mode():
        e, a = (F.normalize(who.embed(x), dim=1) for x in (images, again))
    same, other = (e * a).sum(1), (e * a.roll(1, 0)).sum(1)
    cuts = torch.cat([same, other])
    accuracy = ((same > cuts[:, None]).float().mean(1) + (other <= cuts[:, None]).float().mean(1)).max() / 2
    assert accuracy >= 0.97


def test_weights_are_small_and_have_cards():
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert len(files) == 5
    assert sum(f.stat().st_size for f in files) < 12e6
    assert all(f.with_suffix(".md").exists() for f in files)


def test_recipes_train(tmp_path):
    """Two steps of each, through the command line and its configurations, each from what those before it left."""
    needs = {
        "synthesis": {"factor_network": "factors", "mapping": "mapping"},
        "encoder": {"start": "synthesis"},
        "generator": {"factor_network": "factors", "start": "synthesis", "encoder": "encoder"},
        "finish": {"factor_network": "factors", "start": "generator", "encoder": "generator"},
    }
    stages = ("factors", "attributes", "identity", "attributes-2", "identity-2", "mapping", *needs)
    for name in stages:
        options = [
            "--trainer.max_epochs=1",
            "--data.init_args.steps_per_epoch=2",
            "--data.init_args.validation_steps=1",
        ]
        options += [f"--trainer.logger.init_args.save_dir={tmp_path}", f"--trainer.default_root_dir={tmp_path / name}"]
        options += [f"--model.init_args.{k}={tmp_path / v / 'last.ckpt'}" for k, v in needs.get(name, {}).items()]
        if name in ("synthesis", "generator", "finish"):
            options.append("--model.init_args.compile=false")
        if name == "generator":
            options.append("--model.init_args.adversarial=0.05")
        assert main(["fit", f"--config={ROOT / 'configs/zoo'}/{name}.yaml", *options]) == 0
        assert (tmp_path / name / "last.ckpt").exists()
    (log,) = tmp_path.glob("generator/version_0/metrics.csv")
    assert "val/psnr_encoded" in log.read_text()
    exported = export_zoo(tmp_path / "export", tmp_path, n=20)
    assert {f.stem for f in exported.glob("*.safetensors")} == {f.stem for f in WEIGHTS.glob("*.safetensors")}
    assert "perfect edits" in (exported / "synthfaces-generator.md").read_text()
    with Image.open(exported / "synthfaces-generator.png") as picture:
        assert picture.size == (10 * 64 * 4, 5 * 64 * 4)
    assert load_generator(exported / "synthfaces-generator.safetensors").latent_shape == (128,)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"ffhq cannot be read .* in the zoo \(synthfaces\)$"):
        load_generator("ffhq")

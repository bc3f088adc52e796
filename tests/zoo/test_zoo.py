"""The shipped networks reach, on renders no one has seen, what their cards say and what the project needs."""

import pytest
import torch
import torch.nn.functional as F

from lcg_lightning.cli import main
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.accuracy import attribute_scores
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network
from lcg_lightning.synthfaces.faces import SCHEMA, Faces, faces_from_z, independent_faces, render, sample_z
from lcg_lightning.zoo.shelf import WEIGHTS
from tests.conftest import ROOT

N = 300


@pytest.fixture(scope="module")
def faces():
    return faces_from_z(sample_z(N, 2**33 + 7))


@pytest.fixture(scope="module")
def images(faces):
    return render(faces)


@pytest.fixture(scope="module")
def rebuilt(images):
    generator = load_generator()
    with torch.inference_mode():
        return torch.cat([generator.decode(generator.encode(part)) for part in images.split(100)])


def accuracies(images, faces):
    with torch.inference_mode():
        outputs = load_attribute_judge()(images)
    scores = attribute_scores(SCHEMA.predict(outputs), faces.labels, SCHEMA).mean(0)
    return dict(zip(SCHEMA.names, scores.tolist(), strict=False))


def test_judge_knows_clean_renders(images, faces):
    found = accuracies(images, faces)
    assert min(found[a.name] for a in SCHEMA if a.kind == "binary") >= 0.99
    assert min(found["Age"], found["Yaw"]) > 0.95


def test_reconstructions_keep_attributes(rebuilt, faces):
    found = accuracies(rebuilt, faces)
    assert min(found[a.name] for a in SCHEMA if a.kind == "binary") >= 0.97, found


def test_identity_survives_reconstruction_and_is_not_shared(images, rebuilt):
    who = load_identity_network()
    with torch.inference_mode():
        e, r = (F.normalize(who.embed(x), dim=1) for x in (images, rebuilt))
    same, other = (e * r).sum(1).mean(), (e * r.roll(1, 0)).sum(1).mean()
    assert same > 0.8
    assert other < same - 0.3


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
    assert len(files) == 3
    assert sum(f.stat().st_size for f in files) < 12e6
    assert all(f.with_suffix(".md").exists() for f in files)


def test_recipes_train(tmp_path):
    """Two steps of each, through the command line and its configurations; the generator needs the factors' network."""
    for name in ("factors", "attributes", "identity", "generator"):
        short = ["--trainer.max_epochs=1", "--data.init_args.steps_per_epoch=2", "--data.init_args.validation_steps=1"]
        places = [f"--trainer.logger.init_args.save_dir={tmp_path}", f"--trainer.default_root_dir={tmp_path / name}"]
        options = [*short, *places]
        if name == "generator":
            factors = tmp_path / "factors/last.ckpt"
            options += [f"--model.init_args.factor_network={factors}", "--model.init_args.compile=false"]
        assert main(["fit", f"--config={ROOT / 'configs/zoo'}/{name}.yaml", *options]) == 0
        assert (tmp_path / name / "last.ckpt").exists()
    (log,) = tmp_path.glob("generator/version_0/metrics.csv")
    assert "val/psnr_encoded" in log.read_text()


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"ffhq cannot be read .* in the zoo \(synthfaces\)$"):
        load_generator("ffhq")

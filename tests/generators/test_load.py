"""A stranger's generator and judges, from a module of their own, go through every command that names one."""

import json
import sys

import pytest
import torch
import yaml

from lcg_lightning.cli import main
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network

MODULE = '''
import torch
from torch import nn

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.generators.base import Generator
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.identity import IdentityNetwork


class Colours(Generator):
    """Three numbers are the colour of a flat image."""

    def __init__(self, size: int, gain: float = 1.0) -> None:
        super().__init__()
        self.latent_shape, self.image_size = (3,), size
        self.register_buffer("gain", torch.tensor(gain))

    def decode(self, latents, noise=None):
        return (self.gain * latents).tanh()[:, :, None, None].expand(-1, -1, self.image_size, self.image_size)

    def sample_latents(self, n, generator):
        return torch.randn(n, 3, generator=generator)


class Mean(nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


class RedJudge(AttributeJudge):
    """Red or not, green or not."""

    def __init__(self, sharpness: float = 10.0) -> None:
        super().__init__(Mean(), AttributeSchema((Attribute("Red"), Attribute("Green"))), fingerprint=f"red{sharpness}")
        self.sharpness = sharpness

    def forward(self, images):
        return self.sharpness * self.network(images)[:, :2]


class Who(IdentityNetwork):
    def __init__(self) -> None:
        super().__init__(Mean(), num_features=3)
'''
GENERATOR = {"class_path": "strangers.Colours", "init_args": {"size": 8}}


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    (tmp_path / "strangers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("strangers", None)


def test_by_mapping_by_yaml_file_and_as_an_object(strangers):
    (strangers / "mine.yaml").write_text(yaml.safe_dump(GENERATOR))
    latents = torch.tensor([[0.0, 1.0, -2.0]])
    for source in (GENERATOR, "mine.yaml", {"class_path": "strangers.Colours", "size": 8}, load_generator(GENERATOR)):
        images = load_generator(source).decode(latents)
        torch.testing.assert_close(images, latents.tanh()[:, :, None, None].expand(1, 3, 8, 8))
    assert load_generator("mine.yaml", gain=2.0).gain == 2
    judge = load_attribute_judge({"class_path": "strangers.RedJudge", "sharpness": 2.0})
    narrow = judge.select(judge.schema.__class__((judge.schema["Green"],)))
    torch.testing.assert_close(narrow(images), 2 * latents[:, 1:2].tanh())
    who = load_identity_network({"class_path": "strangers.Who"})
    torch.testing.assert_close(who(images), who.embed(images))
    assert (who.name, load_identity_network(who)) == ("Who", who)


def test_wrong_classes_are_one_line(strangers, capsys):
    for given, line in (
        ({"class_path": "strangers.Colours", "siz": 8}, "unknown key 'siz'; did you mean size?"),
        ({"class_path": "strangers.Colours"}, "strangers.Colours: size is missing"),
        ({"class_path": "strangers.RedJudge"}, "a subclass of lcg_lightning.generators.base.Generator"),
        ({"class_path": "strangrs.Colours"}, "No module named 'strangrs'"),
    ):
        with pytest.raises(UserError) as error:
            load_generator(given)
        assert line in str(error.value)
    assert main(["generator", "info", "{class_path: strangers.Colours, size: eight}"]) == 2
    assert capsys.readouterr().err == "lcg: error: strangers.Colours: size is 'eight'; give int\n"


def test_every_command_takes_them(strangers, capsys):
    (strangers / "mine.yaml").write_text(yaml.safe_dump(GENERATOR))
    assert main(["generator", "info", "mine.yaml"]) == 0
    assert "Colours" in capsys.readouterr().out
    (strangers / "encode.yaml").write_text(
        yaml.safe_dump(
            {
                "out": "store",
                "generator": GENERATOR,
                "data": {
                    "class_path": "Sampled",
                    "init_args": {"n": 400, "attributes": {"class_path": "strangers.RedJudge"}},
                },
            }
        )
    )
    assert main(["encode", "--config=encode.yaml"]) == 0
    store = LatentStore.open(strangers / "store", load_generator("mine.yaml"))
    test = store.split("test")
    assert torch.equal(test.labels, (test.latents[:, :2] > 0).float())
    mine = ["store", "drawn", "--method=Retrieval", "--n=2", "--generator=mine.yaml"]
    assert main(["sample", "Red & ~Green", *mine]) == 0
    report = json.loads((strangers / "drawn/report.json").read_text())
    assert (report["read_by"], report["steps"]) == (None, [{"condition": "Red & ~Green"}])  # no judge knows this world
    mine = ["store", "edited", "--method=LatentArithmetic", "--n=2", f"--generator={json.dumps(GENERATOR)}"]
    assert main(["edit", '["Red"]', *mine]) == 0
    assert main(["edit", "Red", "store", "one", *mine[2:]]) == 0  # one condition needs no list
    listed, one = ((strangers / name / "latents.safetensors").read_bytes() for name in ("edited", "one"))
    assert one == listed
    arguments = {
        "data": {"class_path": "LatentDataModule", "init_args": {"store": "store", "batch_size": 16}},
        "trainer": {"accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        "model": {
            "class_path": "Evaluation",
            "init_args": {
                "task": {"class_path": "Editing", "init_args": {"attributes": ["Red"]}},
                "method": {"class_path": "LatentArithmetic"},
                "generator": GENERATOR,
                "judge": {"class_path": "strangers.RedJudge", "init_args": {"sharpness": 3.0}},
                "identity": {"class_path": "strangers.Who"},
                "out": "record",
            },
        },
    }
    (strangers / "test.yaml").write_text(yaml.safe_dump(arguments))
    assert main(["test", "--config=test.yaml"]) == 0
    record = json.loads((strangers / "record/record.json").read_text())
    assert record["config"]["generator"] == GENERATOR
    assert record["fingerprints"]["judge"] == "red3.0"
    assert record["metrics"]["acc/Red"]["value"] == 1.0
    assert "id" in record["metrics"]
    assert (
        main(
            [
                "test",
                "--config=test.yaml",
                "--model.init_args.generator.init_args.size=0.5",
                "--model.init_args.out=more",
            ]
        )
        == 2
    )
    assert "size is 0.5; give int" in capsys.readouterr().err

"""Users' own networks judge images as their description says; every shipped description loads."""

import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.formats.preprocess import Preprocess
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network
from tests.conftest import ROOT
from tests.formats.test_programs import Tiny, exported, script

CONFIGS = ROOT / "configs/judges"


class Columns(nn.Module):
    """The mean of each channel, then fixed columns: a network whose every output is known."""

    def forward(self, x):
        red, green, blue = x.mean((2, 3)).unbind(1)
        return torch.stack([red, green, blue, red.sigmoid(), 1 - red.sigmoid(), 20 + 10 * green], 1)


@pytest.fixture
def network(tmp_path):
    script(Columns(), tmp_path / "columns.pt", None)
    return str(tmp_path / "columns.pt")


@pytest.fixture
def images():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def judge(network, *outputs, **preprocess):
    return load_attribute_judge({"path": network, "size": 8, **preprocess, "outputs": list(outputs)})


def test_crop_and_box_pooling_are_those_of_slices_and_means():
    images = torch.rand(2, 3, 512, 512, dtype=torch.float64) * 2 - 1
    arcface = Preprocess(size=94, pool=256, crop=(35, 223, 32, 220))(images)
    pixels = images.numpy().reshape(2, 3, 256, 2, 256, 2).mean((3, 5))[:, :, 35:223, 32:220]
    np.testing.assert_allclose(arcface, pixels.reshape(2, 3, 94, 2, 94, 2).mean((3, 5)), atol=1e-12)


def test_bilinear_is_pillows():
    levels = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    expected = np.asarray(Image.fromarray(levels).resize((24, 24), Image.Resampling.BILINEAR))
    found = Preprocess(size=24, resize="bilinear", mean=0, std=1)(torch.from_numpy(levels * 2 - 1).expand(1, 3, -1, -1))
    np.testing.assert_allclose(found[0, 1], expected, atol=1e-5)


def test_channels_and_normalisation():
    red, green, blue = 0.1, 0.4, 0.9
    image = (torch.tensor([red, green, blue]) * 2 - 1)[None, :, None, None].expand(1, 3, 4, 4)
    found = Preprocess(size=4, channels="bgr", mean=(0.2, 0.3, 0.5), std=(0.5, 0.25, 2.0))(image)
    expected = [(blue - 0.2) / 0.5, (green - 0.3) / 0.25, (red - 0.5) / 2.0]
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.tensor(expected))


def test_outputs_have_the_closed_forms(network, images):
    red, green, blue = images.mean((2, 3)).unbind(1)
    found = judge(
        network,
        {"name": "one logit", "columns": [2]},
        {"name": "inverted", "columns": [2], "invert": True},
        {"name": "one probability", "columns": [3], "reads": "probability"},
        {"name": "two probabilities", "columns": [4, 3], "reads": "probability"},
        {"name": "two logits", "columns": [0, 1]},
        {"name": "classes", "kind": "categorical", "classes": ["a", "b", "c"], "columns": [2, 0, 1]},
        {"name": "number", "kind": "continuous", "low": 10, "high": 30, "columns": [5], "reads": "value"},
    )
    expected = [blue, -blue, red, red, green - red, blue, red, green, (10 + 10 * green) / 20, torch.zeros(6)]
    torch.testing.assert_close(found(images), torch.stack(expected, 1))
    assert found.schema.predict(found(images))[0, -1].item() == pytest.approx(20 + 10 * green[0].item(), abs=1e-4)


def test_select_reorders_and_keeps_natural_values():
    schema = AttributeSchema((Attribute("Age", "continuous", low=0, high=100), Attribute("Smile"), Attribute("Male")))
    outputs = torch.tensor([[0.25, math.log(0.04), 2.0, -3.0]])
    whole = AttributeJudge(nn.Identity(), schema, "judge", "0")
    narrow = whole.select(AttributeSchema((Attribute("male"), Attribute("Age", "continuous", low=20, high=70))))
    found = narrow(outputs)
    assert narrow.schema.predict(found).tolist() == [[0.0, 25.0]]
    assert found[0, 0] == -3.0
    # A deviation of 0.2 x 100 years is 0.4 x 50.
    assert found[0, 2].exp().sqrt().item() == pytest.approx(0.4)
    for wanted, message in (
        (Attribute("Hat"), "judge judge: unknown attribute 'Hat'"),
        (Attribute("Smile", "continuous"), "Smile is continuous but judge judge knows it as binary"),
    ):
        with pytest.raises(UserError, match=message):
            whole.select(AttributeSchema((wanted,)))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"columns": [6]}, "attribute a reads column 6, but the network gives 6 columns"),
        ({"columns": [-1]}, r"outputs\[0\]: attribute a: columns are \[-1\]"),
        ({"columns": [0, 1, 2]}, "needs 1 or 2"),
        ({"columns": [5], "reads": "probability"}, "reads probabilities, but the network gives 2"),
        ({"columns": [5], "kind": "continuous"}, "read value"),
        ({"columns": [0], "inverted": True}, "unknown key 'inverted'; did you mean invert"),
        ({"columns": 3}, r"outputs\[0\]: columns is 3; give tuple"),
    ],
)
def test_outputs_that_do_not_fit_are_one_line(network, output, message):
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        judge(network, {"name": "a"} | output)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"resiz": "area"}, "unknown key 'resiz'; did you mean resize"),
        ({"outputs": []}, "unknown key 'outputs'"),
        ({"crop": [0, 8, 0, 8]}, "set pool"),
        ({"pool": 8, "crop": [0, 9, 0, 8]}, "does not lie in pool 8"),
        ({"size": None}, "size is missing"),
        ({"size": 0}, "size is 0"),
        ({"resize": "cubic"}, "resize is 'cubic'; give 'area', 'bilinear'"),
        ({"mean": "ImageNet"}, "mean is 'ImageNet'"),
    ],
)
def test_preprocessing_that_does_not_fit_is_one_line(network, keys, message):
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        load_identity_network({"path": network, "size": 8} | keys)


def test_network_exported_for_one_image_is_told_while_loading(tmp_path):
    exported(Tiny().eval(), tmp_path / "one.pt2", torch.rand(1, 3, 8, 8), dynamic=False)
    description = {"path": str(tmp_path / "one.pt2"), "size": 8}
    with pytest.raises(UserError, match="trusted: true"):
        load_identity_network(description)
    with pytest.raises(UserError, match="dynamic batch dimension"):
        load_identity_network(description | {"trusted": True})


def test_identity_features_are_the_embedding(network, images):
    who = load_identity_network({"path": network, "size": 8})
    assert (who.name, who.num_features) == ("columns", 6)
    assert torch.equal(who.embed(images), who(images))
    torch.testing.assert_close(who.embed(images)[:, :3], images.mean((2, 3)))


def test_fingerprint_covers_file_preprocessing_and_columns(network, tmp_path):
    script(Tiny(6).eval(), tmp_path / "other.pt", None)
    smile = {"name": "a", "columns": [0]}
    judges = [
        judge(network, smile),
        judge(str(tmp_path / "other.pt"), smile, trusted=True),
        judge(network, smile, channels="bgr"),
        judge(network, smile | {"columns": [1]}),
        judge(network, smile | {"invert": True}),
    ]
    assert len({j.fingerprint for j in judges}) == len(judges)
    assert judge(network, smile).fingerprint == judges[0].fingerprint


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_descriptions_load(config, tmp_path):
    """With a tiny network in the place of the one each describes."""
    given = yaml.safe_load(config.read_text())
    outputs = given.get("outputs", [])
    width = 1 + max((c for o in outputs for c in o["columns"]), default=511)
    script(Tiny(width).eval(), tmp_path / "net.pt", None)
    (tmp_path / config.name).write_text(yaml.safe_dump(given | {"path": str(tmp_path / "net.pt"), "trusted": True}))
    images = torch.rand(2, 3, 300, 300) * 2 - 1
    if outputs:
        found = load_attribute_judge(tmp_path / config.name)
        assert sorted(c for o in outputs for c in o["columns"]) == list(range(width))
        assert found(images).shape == (2, found.schema.num_outputs)
    else:
        assert load_identity_network(tmp_path / config.name).embed(images).shape == (2, width)


def test_zoo_by_name():
    assert load_attribute_judge().image_size == load_identity_network("synthfaces").image_size == 64
    with pytest.raises(UserError, match="synthfaces-attributes"):
        load_attribute_judge("ffhq")

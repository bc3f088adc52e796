import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.inception import INCEPTION_FILE, clean_resize, load_inception
from lcg_lightning.evaluation.networks import load_features

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # the file is TorchScript


class Layers(nn.Module):
    """Stands for Inception: 2048 features of a 299 x 299 image in [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.arange(2048.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))[:, None] + 0.001 * self.scale * x[:, 0, 100, 200, None]


class Network(nn.Module):
    """The interface of the TorchScript file: clean-fid calls ``layers``."""

    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def file(tmp_path):
    torch.jit.script(Network()).save(str(tmp_path / INCEPTION_FILE))
    return tmp_path / INCEPTION_FILE


def quantised(images):
    return ((images + 1) * 127.5).round().clamp(0, 255)


@pytest.mark.parametrize("side", [64, 299, 512])
def test_resize_agrees_with_torch_antialiased_bicubic(side):
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    expected = F.interpolate(quantised(images), (299, 299), mode="bicubic", antialias=True).clamp(0, 255)
    torch.testing.assert_close(clean_resize(images), expected, atol=0.01, rtol=0)


def test_inception_from_a_file(file):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    extractor = load_inception(file)
    pixels = F.interpolate(quantised(images), (299, 299), mode="bicubic", antialias=True).clamp(0, 255)
    expected = Layers()(pixels / 128 - 1).detach()
    features = extractor.train()(images)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
    assert not extractor.training
    assert not features.requires_grad
    assert (extractor.name, extractor.num_features) == ("inception-clean", 2048)
    assert extractor.fingerprint == hashlib.sha256(file.read_bytes()).hexdigest()
    torch.testing.assert_close(load_inception(file.parent)(images[:1]), features[:1], atol=1e-4, rtol=1e-4)


def test_download_lands_at_its_place_or_leaves_nothing(file, tmp_path, monkeypatch):
    url = "cleanfid.downloads_helper.inception_url"
    place = tmp_path / "new" / INCEPTION_FILE
    monkeypatch.setattr(url, (tmp_path / "absent").as_uri())
    with pytest.raises(UserError, match="could not fetch"):
        load_inception(place, download=True)
    assert not list(place.parent.iterdir())
    monkeypatch.setattr(url, file.as_uri())
    load_inception(place, download=True)
    assert place.read_bytes() == file.read_bytes()


def test_what_fid_compares_is_chosen_in_one_word_or_by_a_file(file, tmp_path, monkeypatch):
    monkeypatch.setattr("cleanfid.downloads_helper.inception_url", file.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    fetched, given = load_features("inception", None), load_features(str(file), None)
    assert fetched.fingerprint == given.fingerprint
    assert (tmp_path / "cache/hub/checkpoints" / INCEPTION_FILE).read_bytes() == file.read_bytes()
    assert load_features("none", None) is None
    with pytest.raises(UserError, match="no identity network to take features from"):
        load_features("identity", None)


def test_a_missing_misnamed_or_foreign_file_is_refused(file, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(file.parent / "cache"))
    with pytest.raises(UserError, match=r"cache/hub/checkpoints/inception-2015-12-05.pt; put https"):
        load_inception()
    with pytest.raises(UserError, match="rename it"):
        load_inception(file.with_name("inception.pt"))
    torch.jit.script(nn.Linear(2, 2)).save(str(file))
    with pytest.raises(UserError, match="is not clean-fid's Inception"):
        load_inception(file)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="is not clean-fid's Inception"):
        load_inception(file)

"""The synthesis network against the paper's formula, sample by sample, and against recorded official outputs."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lcg_lightning.errors import UserError
from lcg_lightning.generators.stylegan2 import StyleGAN2, SynthesisLayer
from lcg_lightning.generators.stylegan2_pickle import load_pickle

ACCEPTANCE = Path(__file__).parents[3] / "shared/acceptance/stylegan2_tiny32"


def textbook_layer(layer: SynthesisLayer, x, w):
    """Modulates and demodulates a weight per sample; up-samples by zero insertion and the full filter."""
    outputs = []
    for xi, style in zip(x, layer.affine(w), strict=True):
        weight = layer.weight * style[None, :, None, None]
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if layer.up:
            c, h, _ = xi.shape
            wide = xi.new_zeros(1, c, 2 * h, 2 * h)
            wide[0, :, ::2, ::2] = xi
            wide = F.conv2d(F.pad(wide, (2, 2, 2, 2)), weight.flip(2, 3))
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
            kernel = torch.outer(taps, taps) / 64 * 4
            out = F.conv2d(F.pad(wide, (1, 0, 1, 0)).transpose(0, 1), kernel[None, None]).transpose(0, 1)
        else:
            out = F.conv2d(xi[None], weight, padding=1)
        out = out + layer.noise_const * layer.noise_strength + layer.bias[:, None, None]
        outputs.append(F.leaky_relu(out, 0.2) * 2**0.5)
    return torch.cat(outputs)


@pytest.mark.parametrize("up", [False, True])
def test_layer_is_the_papers_formula(up):
    torch.manual_seed(0)
    layer = SynthesisLayer(5, 7, 6, 16 if up else 8, up=up).double()
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    torch.nn.init.normal_(layer.bias)
    x, w = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 6).double()
    torch.testing.assert_close(layer(x, w, "const"), textbook_layer(layer, x, w), rtol=1e-10, atol=1e-10)


def test_truncation_pulls_towards_the_mean():
    network = StyleGAN2(8, 0, 16, 8, channel_base=64, channel_max=8)
    torch.nn.init.normal_(network.mapping.w_avg)
    z = torch.randn(4, 8)
    mean = network.mapping.w_avg
    torch.testing.assert_close(network.mapping(z, truncation_psi=0.3) - mean, 0.3 * (network.mapping(z) - mean))


@pytest.mark.skipif(not ACCEPTANCE.exists(), reason="official reference outputs are not part of the repository")
def test_official_pickle_reproduces_its_references():
    network = load_pickle(ACCEPTANCE / "network-snapshot.pkl")
    ref = {k: torch.from_numpy(v) for k, v in np.load(ACCEPTANCE / "reference.npz").items()}
    with torch.no_grad():
        found = {
            "w": network.mapping(ref["z"])[:, None].expand_as(ref["w"]),
            "w_psi07": network.mapping(ref["z"], truncation_psi=0.7)[:, None].expand_as(ref["w"]),
            "img_const": network(ref["z"]),
            "img_none": network(ref["z"], noise_mode="none"),
            "img_psi07": network(ref["z"], truncation_psi=0.7),
            "img_wplus": network.draw(ref["w_plus"]),
        }
    for name, value in found.items():
        assert (value - ref[name]).abs().max() < 1e-4, name


class EasyDict(dict):
    """What the official training script keeps its keyword arguments in."""


class Recorded:
    """Pickles as a call of the official reconstruction function, which is not there when the file is read."""

    def __init__(self, meta):
        self.meta = meta

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta):
    raise AssertionError("nothing in the file may run")


def official(module):
    """A module as torch_utils.persistence writes it, recursively."""
    state = {
        "_parameters": dict(module._parameters),
        "_buffers": dict(module._buffers),
        "_modules": {name: official(child) for name, child in module._modules.items()},
        "_non_persistent_buffers_set": set(),
        "_init_args": (),
        "_init_kwargs": getattr(module, "arguments", {}),
    }
    return Recorded({"type": "class", "module_src": "raise SystemExit", "class_name": "Generator", "state": state})


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickle_of_the_official_structure(tmp_path, protocol, monkeypatch):
    for module, thing in {"torch_utils.persistence": _reconstruct_persistent_obj, "dnnlib.util": EasyDict}.items():
        stub = types.ModuleType(module)
        setattr(stub, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, module.split(".")[0], types.ModuleType(module.split(".")[0]))
        monkeypatch.setitem(sys.modules, module, stub)
        monkeypatch.setattr(thing, "__module__", module)
    torch.manual_seed(0)
    network = StyleGAN2(8, 0, 16, 8, channel_base=64, channel_max=8)
    plain = {"z_dim": 8, "c_dim": 0, "w_dim": 16, "img_resolution": 8, "img_channels": 3}
    network.arguments = {**plain, "synthesis_kwargs": EasyDict(channel_base=64, channel_max=8), "mapping_kwargs": {}}
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G": None, "G_ema": official(network)}, protocol=protocol))
    z = torch.randn(2, 8)
    assert torch.equal(load_pickle(path)(z), network(z))


def test_foreign_pickle_is_refused_by_name_and_nothing_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Evil()}))
    with pytest.raises(UserError, match=r"network\.pkl: refused to load builtins\.eval"):
        load_pickle(path)
    assert not (tmp_path / "ran").exists()


def test_damaged_pickle_is_one_line(tmp_path):
    path = tmp_path / "network.pkl"
    with pytest.raises(UserError, match="No such file"):
        load_pickle(path)
    path.write_bytes(b"ccollections\nOrderedDict\n(I1\nI2\nI3\ntR.")
    with pytest.raises(UserError, match="not a readable StyleGAN2 network pickle"):
        load_pickle(path)
    path.write_bytes(pickle.dumps({"G_ema": {"state": list(range(1000))}})[:200])
    with pytest.raises(UserError, match="not a readable StyleGAN2 network pickle") as error:
        load_pickle(path)
    assert "\n" not in str(error.value)

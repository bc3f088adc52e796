"""The synthesis network against the paper's formula, sample by sample, and against recorded official outputs."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lcg_lightning.errors import UserError
from lcg_lightning.formats.programs import load_program
from lcg_lightning.formats.stylegan2_pickle import load_pickle
from lcg_lightning.generators.convert import convert
from lcg_lightning.generators.load import load_generator
from lcg_lightning.networks.stylegan2 import StyleGAN2, SynthesisLayer
from tests.conftest import SHARED, needs
from tests.formats.test_programs import Tiny, onnx
from tests.generators.published import diffae_checkpoint, stylegan2_pickle

ACCEPTANCE = SHARED / "acceptance/stylegan2_tiny32"


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


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("up", [False, True])
def test_layer_is_the_papers_formula(up, batch):
    torch.manual_seed(0)
    layer = SynthesisLayer(5, 7, 6, 16 if up else 8, up=up).double()
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    torch.nn.init.normal_(layer.bias)
    x, w = torch.randn(batch, 5, 8, 8).double(), torch.randn(batch, 6).double()
    torch.testing.assert_close(layer(x, w, "const"), textbook_layer(layer, x, w), rtol=1e-10, atol=1e-10)


def test_truncation_pulls_towards_the_mean():
    network = StyleGAN2(8, 0, 16, 8, channel_base=64, channel_max=8)
    torch.nn.init.normal_(network.mapping.w_avg)
    z = torch.randn(4, 8)
    mean = network.mapping.w_avg
    torch.testing.assert_close(network.mapping(z, truncation_psi=0.3) - mean, 0.3 * (network.mapping(z) - mean))


@needs("acceptance/stylegan2_tiny32")
def test_official_pickle_reproduces_its_references():
    network, _ = load_pickle(ACCEPTANCE / "network-snapshot.pkl")
    ref = {k: torch.from_numpy(v) for k, v in np.load(ACCEPTANCE / "reference.npz").items()}
    with torch.no_grad():
        found = {
            "w": network.mapping(ref["z"])[:, None].expand_as(ref["w"]),
            "w_psi07": network.mapping(ref["z"], truncation_psi=0.7)[:, None].expand_as(ref["w"]),
            "img_const": network(ref["z"]),
            "img_none": network(ref["z"], noise="none"),
            "img_psi07": network(ref["z"], truncation_psi=0.7),
            "img_wplus": network.draw(ref["w_plus"]),
        }
    for name, value in found.items():
        assert (value - ref[name]).abs().max() < 1e-4, name


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickle_of_the_official_structure(tmp_path, protocol):
    network = stylegan2_pickle(tmp_path / "network.pkl", protocol=protocol)
    z = torch.randn(2, 8)
    assert torch.equal(load_pickle(tmp_path / "network.pkl")[0](z), network(z))


def test_spaces_truncation_and_noise_of_the_generator(tmp_path):
    network = stylegan2_pickle(path := tmp_path / "network.pkl")
    w, plus = load_generator(path, truncation_psi=0.7), load_generator({"path": str(path), "space": "w+"})
    assert (w.latent_shape, plus.latent_shape, w.image_size) == ((16,), (4, 16), 8)
    assert w.fingerprint == plus.fingerprint
    drawn = plus.sample_latents(3, torch.Generator().manual_seed(1))
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, network.mapping(z)[:, None].expand(3, 4, 16))
    torch.testing.assert_close(
        w.sample_latents(3, torch.Generator().manual_seed(1)), network.mapping.w_avg.lerp(drawn[:, 0], 0.7)
    )
    torch.testing.assert_close(plus.decode(drawn), w.decode(drawn[:, 0]))
    changed = drawn.clone()
    changed[:, 3] += 1
    assert not torch.allclose(plus.decode(changed), plus.decode(drawn))
    random = load_generator(path, noise="random")
    assert random.noise_shape == (16 + 2 * 64,)
    constants = [network.synthesis.b4.conv1, network.synthesis.b8.conv0, network.synthesis.b8.conv1]
    same = torch.cat([layer.noise_const.flatten() for layer in constants]).expand(3, -1)
    torch.testing.assert_close(random.decode(drawn[:, 0], same), w.decode(drawn[:, 0]))
    assert not torch.allclose(load_generator(path, noise="none").decode(drawn[:, 0]), w.decode(drawn[:, 0]))
    noise = random.noise_of(0, torch.tensor([5, 6]), drawn)
    alone = random.decode(drawn[1:2, 0], random.noise_of(0, torch.tensor([6]), drawn))
    torch.testing.assert_close(random.decode(drawn[:2, 0], noise)[1:], alone, rtol=1e-4, atol=1e-5)


def test_classes_are_asked_for(tmp_path):
    network = stylegan2_pickle(path := tmp_path / "network.pkl", classes=3)
    generator = load_generator(path, class_index=2)
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    expected = network.mapping(z, torch.eye(3)[[2, 2, 2, 2]])
    torch.testing.assert_close(generator.sample_latents(4, torch.Generator().manual_seed(0)), expected)
    with pytest.raises(UserError, match="the network has classes 0 to 2"):
        load_generator(path, class_index=3)
    with pytest.raises(UserError, match="draws one of 3 classes; give class_index"):
        load_generator(path).sample_latents(1, torch.Generator())
    assert load_generator(path).decode(torch.zeros(1, 16)).shape == (1, 3, 8, 8)
    stylegan2_pickle(path)
    with pytest.raises(UserError, match="knows no classes"):
        load_generator(path, class_index=0)


def test_clamp_bounds_what_layers_give(tmp_path):
    network = stylegan2_pickle(path := tmp_path / "network.pkl", clamp=0.05)
    loaded, arguments = load_pickle(path)
    assert arguments["conv_clamp"] == 0.05
    with torch.no_grad():
        x = network.synthesis.b4.conv1(torch.randn(2, 8, 4, 4), torch.randn(2, 16), "none")
        assert x.abs().max() == pytest.approx(0.05 * 2**0.5)
        assert loaded(torch.randn(2, 8)).abs().max() <= 0.1 + 1e-6


def test_conversion_keeps_images_and_fingerprint(tmp_path):
    stylegan2_pickle(tmp_path / "network.pkl")
    diffae_checkpoint(tmp_path / "latent.ckpt", "latent")
    for name in ("network.pkl", "latent.ckpt"):
        source, out = tmp_path / name, tmp_path / f"{name}.safetensors"
        convert(source, out)
        before, after = load_generator(source), load_generator(out)
        assert before.fingerprint == after.fingerprint
        latents = torch.randn(2, *before.latent_shape)
        assert torch.equal(before.decode(latents), after.decode(latents))
        if before.statistics:
            assert all(map(torch.equal, before.statistics, after.statistics))
        with pytest.raises(UserError, match="exists"):
            convert(source, out)
    with pytest.raises(UserError, match="needs no conversion"):
        convert(out, tmp_path / "more.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "W"}, r"network\.pkl: space is 'W'; give 'w', 'w\+'$"),
        ({"noise": "const "}, r"network\.pkl: noise is 'const '; give 'const', 'none', 'random'$"),
        ({"truncation": 0.5}, r"network\.pkl: unknown key 'truncation'; did you mean truncation_psi\?"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, options, message):
    stylegan2_pickle(path := tmp_path / "network.pkl")
    with pytest.raises(UserError, match=message):
        load_generator(path, **options)


def test_what_is_no_generator_is_one_line(tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(UserError, match=r"note\.txt: not a generator"):
        load_generator(tmp_path / "note.txt")
    with pytest.raises(UserError, match=r"stylefaces cannot be read .* in the zoo \(synthfaces\)$"):
        load_generator("stylefaces")
    diffae_checkpoint(tmp_path / "cls.ckpt", "cls")
    with pytest.raises(UserError, match="holds a linear classifier, no generator"):
        load_generator(tmp_path / "cls.ckpt")
    stylegan2_pickle(whole := tmp_path / "network.pkl")
    convert(whole, tmp_path / "network.safetensors")
    data = (tmp_path / "network.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="not a file written by `lcg generator convert`"):
        load_generator(tmp_path / "cut.safetensors")


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_channels": 1}, "img_channels is 1"),
        ({"mapping_kwargs": {"activation": "relu"}}, "mapping_kwargs has activation 'relu'"),
        ({"synthesis_kwargs": {"architecture": "resnet"}}, "synthesis_kwargs has architecture 'resnet'"),
        ({"synthesis_kwargs": {"channel_base": 128, "channel_max": 16}}, "has another shape of"),
        ({"z_dim": None}, "not a network of the skip architecture"),
    ],
)
def test_other_arithmetic_is_refused(tmp_path, change, message):
    stylegan2_pickle(tmp_path / "network.pkl", change=change)
    with pytest.raises(UserError, match=message) as error:
        load_pickle(tmp_path / "network.pkl")
    assert "\n" not in str(error.value)


def test_an_encoder_of_ones_own(tmp_path):
    stylegan2_pickle(path := tmp_path / "network.pkl", size=8)
    onnx(Tiny(16).eval(), tmp_path / "encoder.onnx", torch.zeros(2, 3, 4, 4))
    spec = {"path": str(tmp_path / "encoder.onnx"), "size": 4}
    generator = load_generator(path, encoder=spec)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    alone = load_program(tmp_path / "encoder.onnx", (2, 3, 4, 4))
    torch.testing.assert_close(generator.encode(images), alone(torch.nn.functional.avg_pool2d(images, 2)))
    plain = load_generator(path)
    assert generator.fingerprint == plain.fingerprint  # latents of one decode with the other
    assert generator.settings != plain.settings
    assert load_generator(path, encoder=spec, space="w+").encode(images).shape == (2, 4, 16)
    onnx(Tiny(5).eval(), tmp_path / "encoder.onnx", torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match=r"latents \(16,\) expected, its encoder gives"):
        load_generator(path, encoder=spec).encode(images)


def test_values_of_a_wrong_type_are_one_line(tmp_path):
    stylegan2_pickle(path := tmp_path / "network.pkl")
    onnx(Tiny(5).eval(), program := tmp_path / "program.onnx", torch.zeros(2, 3, 4, 4))
    diffae_checkpoint(checkpoint := tmp_path / "x.ckpt")
    for wrong in (
        {"path": str(path), "truncation_psi": "a"},
        {"path": str(path), "encoder": 5},
        {"path": 5},
        {"path": None},
        {1: 2},
        {"path": str(program), "latent_shape": 4},
        {"path": str(program), "latent_shape": [-4]},
        {"path": str(program), "latent_shape": [3, 4, 4], "output_range": 5},
        {"path": str(checkpoint), "steps": 20.5},
        {"path": str(checkpoint), "steps": 0},
        {"path": str(checkpoint), "encoder": {"path": str(program), "size": 4}},
    ):
        with pytest.raises(UserError) as error:
            load_generator(wrong)
        assert "\n" not in str(error.value), wrong


def test_conversion_says_at_once_where_it_cannot_write(tmp_path, monkeypatch):
    stylegan2_pickle(source := tmp_path / "network.pkl")
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nowhere" / "x")
    monkeypatch.setattr("lcg_lightning.generators.convert.load_pickle", lambda path: pytest.fail("read in vain"))
    for out in (source / "x.safetensors", tmp_path / "dangling.safetensors"):
        with pytest.raises(UserError, match=rf"^{out.parent}[^\n]*$"):
            convert(source, out)

"""Diffusion Autoencoders against recorded outputs of the published code, and against files of its structure."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lcg_lightning.diffusion.grids import Grid
from lcg_lightning.diffusion.samplers import ddim, starting_at
from lcg_lightning.errors import UserError
from lcg_lightning.formats.diffae_checkpoint import load_latent_net, load_linear_classifier, rename_latent_net
from lcg_lightning.generators.load import load_generator
from lcg_lightning.models.load import prior_of_diffae
from lcg_lightning.networks.diffae import DiffAE
from lcg_lightning.networks.latent import LatentMLP
from tests.conftest import SHARED, needs
from tests.generators.published import diffae_checkpoint, diffae_state

ACCEPTANCE = SHARED / "acceptance/diffae_tiny"
KEYS = SHARED / "facts/diffae_ffhq256_keys.txt"
official = needs("acceptance/diffae_tiny")


@pytest.fixture(scope="module")
def reference():
    return {k: torch.from_numpy(v) for k, v in np.load(ACCEPTANCE / "reference.npz").items()}


def close(found, expected):
    return (found - expected).abs().max() < 1e-4


@official
def test_autoencoder_reproduces_its_references(reference):
    with torch.no_grad():
        ten = load_generator(ACCEPTANCE / "autoenc.ckpt", steps=10, invert_steps=10)
        more = load_generator(ACCEPTANCE / "autoenc_latent.ckpt", steps=20, invert_steps=50)
        z, x_T = reference["z_sem"], reference["x_T"]
        assert close(ten.encode(reference["image"]), z)
        assert close(ten.network(x_T, reference["unet_t"], z), reference["unet_eps"])
        assert close(ten.decode(z, x_T) / 2 + 0.5, reference["decoded_T10_01"])
        assert close(more.decode(z, x_T) / 2 + 0.5, reference["decoded_T20_01"])
        assert close(ten.invert(reference["image"], z), reference["x_T_inverted_T10"])
        inverted = more.invert(reference["image"], z)
        assert close(inverted, reference["x_T_inverted_T50"])
        assert close(ten.decode(z, inverted) / 2 + 0.5, reference["recon_inv50_render10_01"])
        edited = reference["z_sem_manipulated_id5_amp0.3"]
        assert close(ten.decode(edited, inverted) / 2 + 0.5, reference["manipulated_T10_01"])
    assert ten.fingerprint == more.fingerprint
    assert close(more.statistics[0].float(), reference["conds_mean"][0])
    assert close(more.statistics[1].float(), reference["conds_std"][0])
    x0, noise = reference["image"], reference["image_train_noise"]
    a = 1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    a = a.cumprod(0)[reference["unet_t"]].float()[:, None, None, None]
    eps = ten.network(a.sqrt() * x0 + (1 - a).sqrt() * noise, reference["unet_t"], z)
    assert close((eps - noise).square().mean((1, 2, 3)), reference["image_mse_loss"])


@official
def test_latent_prior_reproduces_its_references(reference):
    path = ACCEPTANCE / "autoenc_latent.ckpt"
    prior = prior_of_diffae(path)
    noise, t = reference["latent_noise"], reference["latent_t"]
    assert close(prior(noise, t), reference["latent_eps"])
    z_t = prior.noised(reference["latent_x0"], t, reference["latent_train_noise"])
    assert close((prior(z_t, t) - reference["latent_train_noise"]).abs().mean(1), reference["latent_l1_loss"])
    prior.double()  # a hundred float32 steps come within 7e-5, too near to the tolerance for other processors
    for steps in (10, 100):
        times = torch.arange(0, 1000, 1000 // steps).flip(0)
        grid = Grid(tuple(times.double().tolist()), (*prior.schedule.alpha_bar[times].tolist(), 1.0))
        table = prior.time_table(times)
        z = ddim(lambda z, i, table=table: prior.forward_at(z, table[i]), starting_at(noise.double()), grid)
        assert close(z, reference[f"latent_ddim_T{steps}_normalised"])


@official
def test_classifier_reproduces_its_references(reference):
    found = load_linear_classifier(ACCEPTANCE / "autoenc_cls.ckpt")
    z = ((reference["z_sem"] - found.mean) / found.std).float()
    assert close(z @ found.weight.T + found.bias, reference["classifier_logits"])
    moved = z + 0.3 * math.sqrt(z.shape[1]) * normalize(found.weight[5], dim=0)
    assert close(moved * found.std + found.mean, reference["z_sem_manipulated_id5_amp0.3"])


@needs("facts/diffae_ffhq256_keys.txt")
def test_full_ffhq256_has_exactly_the_published_keys():
    rows = [line.split("\t") for line in KEYS.read_text().splitlines()]
    with torch.device("meta"):
        model, latent = DiffAE(), LatentMLP(512, 2048, 10, time_hidden=512)
        published = {k: torch.empty([int(n) for n in s.strip("(,)").split(",")]) for k, s in rows}
        net = {k.removeprefix("latent_net."): v for k, v in published.items() if k.startswith("latent_net.")}
        renamed = rename_latent_net(net, 10)
    shapes = {k: v.shape for k, v in published.items() if not k.startswith("latent_net.")}
    assert {k: v.shape for k, v in model.state_dict().items()} == shapes
    assert {k: v.shape for k, v in latent.state_dict().items()} == {k: v.shape for k, v in renamed.items()}
    duplicates = {k for k in net if ".cond_layers." in k}
    assert sum(v.numel() for k, v in net.items() if k not in duplicates) == sum(p.numel() for p in latent.parameters())


def test_averaged_weights_are_used_and_noise_belongs_to_the_caller(tmp_path):
    path = diffae_checkpoint(tmp_path / "autoenc.ckpt")
    generator = load_generator(path, steps=10)
    z, noise = torch.randn(2, 8), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        images = generator.decode(z, noise)
        torch.testing.assert_close(generator.decode(z[1:], noise[1:]), images[1:], rtol=1e-4, atol=1e-4)
        assert torch.equal(generator.decode(z), generator.decode(z))
        assert not torch.equal(generator.decode(z), images)
    state = torch.load(path, weights_only=False)["state_dict"]
    assert not torch.equal(state["model.out.2.weight"], state["ema_model.out.2.weight"])
    assert torch.equal(generator.network.out[2].weight, state["ema_model.out.2.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["state_dict"].pop("ema_model.out.0.weight"), r"lacks out\.0\.weight"),
        (lambda c: c["state_dict"].update({"ema_model.zz": torch.ones(1)}), "has the unknown zz"),
        (lambda c: c["hyper_parameters"].update(net_ch=64), "has another shape of .* and .* more"),
        (lambda c: c["hyper_parameters"].update(net_ch_mult=(1, 2, 2)), "lacks .* no DiffAE of that size"),
        (lambda c: c["hyper_parameters"].update(net_beatgans_attn_head=4), "net_beatgans_attn_head is 4; only"),
        (lambda c: c["hyper_parameters"].pop("img_size"), "no model of a known size"),
        (lambda c: c.pop("hyper_parameters"), "not a checkpoint of DiffAE"),
    ],
)
def test_wrong_checkpoint_is_one_line(tmp_path, change, message):
    path = diffae_checkpoint(tmp_path / "x.ckpt", change=change)
    with pytest.raises(UserError, match=message) as error:
        load_generator(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_parts_are_asked_of_the_file_that_has_them(tmp_path):
    path = diffae_checkpoint(tmp_path / "autoenc.ckpt")
    with pytest.raises(UserError, match="holds no latent prior"):
        load_latent_net(path)
    with pytest.raises(UserError, match="holds no classifier"):
        load_linear_classifier(path)
    with pytest.raises(UserError, match="300 steps do not divide 1000"):
        load_generator(path, steps=300)


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    path = diffae_checkpoint(tmp_path / "x.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="a damaged checkpoint"):
        load_generator(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    path.write_bytes(flipped)
    with pytest.raises(UserError, match="a damaged checkpoint"):
        load_generator(path)

    class Evil:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"state_dict": diffae_state(), "callbacks": Evil()}, path)
    with pytest.raises(UserError, match=r"refused to load eval; do not trust"):
        load_generator(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["hyper_parameters"].pop("net_latent_layers"), "no latent prior of a known size"),
        (lambda c: c["hyper_parameters"].update(latent_beta_scheduler="cosine"), "no latent prior of a known size"),
        (lambda c: c["state_dict"].pop("conds_std"), "holds no latent prior"),
        (lambda c: c["state_dict"].update({"ema_model.latent_net.extra": torch.ones(1)}), "has the unknown extra"),
        (lambda c: c["state_dict"].update({"ema_model.latent_net.layers.0.linear_emb.weight": torch.ones(1)}), "known"),
        (lambda c: c.update(state_dict=[1]), "something other than tensors"),
    ],
)
def test_wrong_latent_prior_is_one_line(tmp_path, change, message):
    path = diffae_checkpoint(tmp_path / "x.ckpt", "latent", change=change)
    with pytest.raises(UserError, match=message) as error:
        prior_of_diffae(path)
    assert "\n" not in str(error.value)

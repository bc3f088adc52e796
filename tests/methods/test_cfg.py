"""Classifier-free guidance on Gaussian latents whose conditional distributions are known."""

import math
from pathlib import Path

import pytest
import torch

from lcg_lightning.conditions import conjunction, parse
from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.methods import cfg
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.cfg import ClassifierFreeGuidance
from lcg_lightning.models.conditional import ConditionalPrior
from tests import toy_latents
from tests.closed_forms import GaussianPrior
from tests.toy_latents import NOISE, SCHEMA, D, V, W, trainer

N = 4000
PRIOR = GaussianPrior(torch.zeros(D).double(), torch.eye(D).double())


class Reader(torch.nn.Module):
    """The toy world's own labels of latents, without noise."""

    def read(self, z):
        size = 10 + 10 * (0.5 + z @ V.to(z)).clamp(0, 1)
        kind = (z[:, 3] > -0.43).to(z) + (z[:, 3] > 0.43)
        return torch.stack([(z @ W.to(z) > 0).to(z), size, kind], 1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    data = LatentDataModule(toy_latents.write(tmp_path_factory.mktemp("toy") / "store", 12000))
    torch.manual_seed(0)
    options = {"hidden": 96, "layers": 4, "time_hidden": 64, "warmup_steps": 20, "decay_steps": 1200}
    prior = ConditionalPrior(D, SCHEMA.to_json(), lr=3e-3, ema_decay=0.99, **options)
    trainer(25, check_val_every_n_epoch=25).fit(prior, data)
    return prior.eval().requires_grad_(False), data.store


@pytest.fixture
def guided(fitted, monkeypatch):
    prior, store = fitted
    monkeypatch.setattr(cfg, "load_conditional_prior", lambda path, store: prior)
    monkeypatch.setattr(cfg, "load_classifier", lambda path, store: Reader())

    def make(classifier=Path("c"), **options):
        method = ClassifierFreeGuidance(Path("p"), classifier, **options)
        method.prepare(store, LatentSpace(None, store.mean, store.std))
        return method

    return make


def sampled(method, text):
    return method.generate(parse(text, SCHEMA), SampleNoise(1, torch.arange(N), D)).double()


def test_scale_1_is_the_conditional_and_scale_0_the_prior(guided):
    z = sampled(guided(scale=1.0), "size=17")
    exact = PRIOR.observe(V[None], torch.tensor([[NOISE**2]]).double(), torch.tensor([0.2]).double())
    torch.testing.assert_close(z.mean(0), exact.mean, rtol=0, atol=0.12)
    torch.testing.assert_close(z.T.cov(), exact.cov, rtol=0, atol=0.2)
    z = sampled(guided(scale=1.0), "~on")
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    weight = torch.exp(-(x**2) / 2) * torch.sigmoid(-W.norm() * x)
    expected = (x * weight).sum() / weight.sum() * W / W.norm()
    torch.testing.assert_close(z.mean(0), expected, rtol=0, atol=0.12)
    z = sampled(guided(scale=0.0), "size=17 & ~on")
    torch.testing.assert_close(z.mean(0), PRIOR.mean, rtol=0, atol=0.12)
    torch.testing.assert_close(z.T.cov(), PRIOR.cov, rtol=0, atol=0.12)


def test_conjunctions_hold_and_more_scale_asks_for_more(guided):
    means = []
    for scale in (1.0, 3.0):
        method = guided(scale=scale)
        z = sampled(method, "on & size=13 & kind=right")
        read = Reader().read(z)
        assert (read[:, 2] == 2).double().mean() > 0.9
        assert (read[:, 1] - 13).abs().mean() < 1.0
        means.append((z @ W).mean())
        assert method.nfe == 20 * (1 if scale == 1 else 2)
    assert means[1] > means[0] + 0.5 > 1.5


def test_an_unknown_label_changes_nothing(fitted, guided):
    prior, _ = fitted
    z, t = torch.randn(6, D), torch.tensor([0, 3, 200, 500, 800, 999])
    unknown = torch.full((6, 3), math.nan)
    torch.testing.assert_close(prior(z, t, prior.features(unknown)), prior(z, t))
    rows = unknown.clone()
    rows[3:, 0] = 1.0
    some = prior(z, t, prior.features(rows))
    torch.testing.assert_close(some[:3], prior(z, t)[:3])
    assert ((some - prior(z, t))[3:].abs().amax(1) > 1e-3).all()
    method = guided(scale=2.0)
    mixed = method.generate(conjunction(rows, SCHEMA), SampleNoise(0, torch.arange(6), D))
    alone = guided(scale=0.0).generate(conjunction(rows, SCHEMA), SampleNoise(0, torch.arange(6), D))
    torch.testing.assert_close(mixed[:3], alone[:3], rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_edits_change_what_is_asked_and_an_empty_one_nothing(guided, scale):
    method, passes = guided(scale=scale, fixed_point=30), 1 if scale == 1 else 2
    source = torch.randn(300, D, generator=torch.Generator().manual_seed(5))
    read = Reader().read(source)
    nothing = conjunction(torch.where(torch.tensor([True, False, True]), read, torch.nan), SCHEMA)
    on, small = parse("on", SCHEMA), parse("on & size=12", SCHEMA)
    (same,) = method.edit(source, [Edit(nothing, nothing)])
    assert method.edit_nfe == 20 * 31 + 20 * passes
    if scale == 1:
        torch.testing.assert_close(same, source, rtol=0, atol=1e-3)
    first, second = method.edit(source, [Edit(c, c) for c in (on, small)])
    assert method.edit_nfe == (20 * 31 + 2 * 20 * passes) / 2  # one inversion for all steps
    (alone,) = method.edit(source, [Edit(small, small)])
    torch.testing.assert_close(alone, second)
    chained = guided(scale=scale, fixed_point=30, anchor="previous")
    again = chained.edit(source, [Edit(c, c) for c in (on, small)])
    torch.testing.assert_close(again[1], chained.edit(first, [Edit(small, small)])[0])
    assert (Reader().read(first)[:, 0] == 1).double().mean() > 0.85
    assert (Reader().read(first)[:, 2] == read[:, 2]).double().mean() > 0.85
    off, before = Reader().read(second)[:, 1] - 12, read[:, 1] - 12
    assert off.abs().mean() < 0.5 * before.abs().mean()
    away = [(second - z).square().sum(1).mean() for z in (source, source.roll(1, 0))]
    assert away[0] < 0.75 * away[1]  # nearer to its own source than to another's


def test_what_it_cannot_do_is_one_line(guided):
    with pytest.raises(UserError, match="leaves a choice"):
        guided().generate(parse("on | kind=right", SCHEMA), SampleNoise(0, torch.arange(2), D))
    with pytest.raises(UserError, match="which value is asked for"):
        guided().generate(parse("~kind=right", SCHEMA), SampleNoise(0, torch.arange(2), D))
    with pytest.raises(UserError, match="give the checkpoint of a classifier"):
        guided(classifier=None).edit(torch.zeros(2, D), [])
    for options in ({"scale": -1.0}, {"scale": math.inf}, {"steps": 1}, {"fixed_point": -1}, {"sampler": "dimm"}):
        with pytest.raises(UserError, match=r"^[^\n]+$"):
            ClassifierFreeGuidance(Path("p"), **options)

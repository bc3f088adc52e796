import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.diffusion.schedule import q_sample
from lcg_lightning.models.calibration import fit_calibration
from lcg_lightning.models.classifier import LatentClassifier
from tests import toy_latents
from tests.closed_forms import GaussianPrior
from tests.toy_latents import NOISE, SCHEMA, D, V, W, trainer


def small(**options):
    torch.manual_seed(0)
    defaults = {"hidden": 64, "layers": 3, "lr": 2e-3, "warmup_steps": 20, "ema_decay": 0.99}
    return LatentClassifier(D, SCHEMA.to_json(), **{**defaults, **options})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    data = LatentDataModule(toy_latents.write(tmp_path_factory.mktemp("normal") / "store", 8000))
    classifier = small()
    trainer(16, check_val_every_n_epoch=17).fit(classifier, data)
    return classifier, data


def test_classifier_approaches_the_posterior_at_every_noise_level(fitted):
    classifier, _ = fitted
    prior = GaussianPrior(torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64))
    z0, eps = prior.sample(500, seed=1), prior.sample(500, seed=2)
    for t in (0, 100, 300, 600, 999):
        a = classifier.schedule.alpha_bar[t].item()
        z = q_sample(z0, a, eps)
        with torch.no_grad():
            out = classifier(z.float(), torch.full((500,), t)).double()
        p = prior.logistic_log_prob(z, a, W).exp()
        assert (torch.sigmoid(out[:, 0]) - p).abs().mean() < 0.05
        mean = 0.5 + prior.tweedie(z, a) @ V
        variance = V @ prior.posterior_cov(a) @ V + NOISE**2
        gap = (out[:, 2].exp() / variance + (out[:, 1] - mean) ** 2 / variance - 1 - out[:, 2] + variance.log()) / 2
        assert gap.mean() < 0.1  # KL(predicted || exact) in nats


def test_reports_of_the_test_run(fitted):
    classifier, data = fitted
    (report,) = trainer().test(classifier, data, verbose=False)
    latents, labels, _ = data.store.split("test")
    z0 = (latents - data.store.mean.float()) / data.store.std.float()
    with torch.no_grad():
        out = classifier(z0, torch.zeros(len(z0)))
    total = 0.0
    for i, row in enumerate(labels):
        if not row[0].isnan():
            total -= binary_cross_entropy_with_logits(out[i, 0], row[0]).item()
        if not row[1].isnan():
            total += (
                torch.distributions.Normal(out[i, 1], (out[i, 2].clamp_min(-6) / 2).exp())
                .log_prob(row[1] / 10 - 1)
                .item()
            )
        if not row[2].isnan():
            total -= cross_entropy(out[i, 3:], row[2].long()).item()
    assert report["test/log_prob"] == pytest.approx(total / len(labels), rel=1e-4)
    assert {f"test/accuracy/{n}" for n in SCHEMA.names} <= set(report)
    levels = [report[f"test/accuracy_level/{k}"] for k in range(5)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 0.8 > 0.65 > levels[4]
    assert 1 - NOISE > report["test/accuracy/size"] > 0.85
    assert trainer().test(classifier, data, verbose=False) == [report]


def test_unknown_labels_teach_nothing():
    classifier = small()
    labels = torch.tensor([[1.0, 15.0, 2.0], [float("nan")] * 3])
    batch = {"latents": torch.randn(2, D), "labels": labels, "index": torch.arange(2)}
    out = torch.randn(2, 6, requires_grad=True)
    log_p = classifier.log_probs(out, batch["labels"])
    log_p.sum().backward()
    assert log_p[1].eq(0).all()
    assert out.grad[1].eq(0).all()
    assert out.grad[0].ne(0).all()


def test_calibration_finds_the_temperature_that_was_put_in():
    g = torch.Generator().manual_seed(0)
    n, temperature = 40_000, torch.tensor([2.0, 0.5, 1.0])
    bucket = torch.arange(n) % 2
    true = 2 * torch.randn(n, 6, generator=g)
    true[:, 2] = -2
    true[:, 1] = 0.5
    on = (torch.rand(n, generator=g) < torch.sigmoid(true[:, 0])).float()
    size = 10 + 10 * (0.5 + torch.exp(true[:, 2] / 2) * torch.randn(n, generator=g))
    kind = torch.multinomial(torch.softmax(true[:, 3:], 1), 1, generator=g)[:, 0].float()
    labels = torch.stack([on, size, kind], 1)
    labels[::7] = torch.nan
    distorted = true * temperature[bucket][:, None]
    distorted[:, 1:3] = true[:, 1:3] - torch.tensor([0.0, 1.5])
    gain, shift = fit_calibration(distorted, labels, bucket, 3, SCHEMA)
    torch.testing.assert_close(gain[:, [0, 3, 4, 5]], 1 / temperature[:, None].expand(3, 4), rtol=0.05, atol=0)
    torch.testing.assert_close(shift[:2, 2], torch.full((2,), 1.5), rtol=0.05, atol=0)
    assert gain[:, 1:3].eq(1).all()
    assert shift[2].eq(0).all()  # no rows
    calibrated = distorted * gain[bucket] + shift[bucket]
    nll = [-LatentClassifier.log_probs(small(), o, labels).sum(1).mean() for o in (distorted, calibrated, true)]
    assert nll[0] - nll[2] > 0.3
    assert abs(nll[1] - nll[2]) < 1e-3


def test_fit_calibrates_on_the_validation_rows(fitted):
    classifier, data = fitted
    assert classifier.ema.gain.ne(1).any()
    assert classifier.ema.shift.ne(0).any()
    before = classifier.ema.gain.clone()
    (report,) = trainer().validate(classifier, data, verbose=False)
    assert torch.equal(classifier.ema.gain, before)  # outside of fit nothing is fitted
    assert report["val/loss"] < 2

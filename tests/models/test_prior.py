import math

import pytest
import torch

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.space import unstandardize
from lcg_lightning.diffusion.noise import sample_noise
from lcg_lightning.diffusion.schedule import q_sample
from lcg_lightning.models.prior import LatentPrior
from tests import toy_latents
from tests.closed_forms import GaussianPrior
from tests.toy_latents import MODES, D, trainer


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    data = LatentDataModule(toy_latents.write(tmp_path_factory.mktemp("modes") / "store", 6000, modes=True))
    torch.manual_seed(0)
    prior = LatentPrior(D, hidden=96, layers=4, lr=2e-3, warmup_steps=20, ema_decay=0.99)
    trainer(30, check_val_every_n_epoch=30).fit(prior, data)
    return prior, data


def test_prior_learns_two_modes(fitted):
    prior, data = fitted
    mean, std = data.store.mean, data.store.std
    modes = [GaussianPrior((m.mean - mean) / std, m.cov / std.outer(std)) for m in MODES]
    latents = data.store.split("test").latents.double()
    z0 = (latents - mean) / std
    assert torch.allclose(unstandardize(z0, mean, std), latents)
    eps = sample_noise(0, range(len(z0)), (D,)).double()
    t = torch.arange(len(z0)) * 1000 // len(z0)
    a = prior.schedule.alpha_bar[t]
    z = q_sample(z0, a, eps)
    best = []
    for x, level in zip(z, a.tolist(), strict=True):
        share = torch.softmax(torch.stack([m.log_prob(x[None], level)[0] for m in modes]), 0)
        best.append(sum(s * m.eps(x[None], level)[0] for s, m in zip(share, modes, strict=True)))
    best = torch.stack(best)
    with torch.no_grad():
        found = prior(z.float(), t)
    assert (found - best).square().mean() < 0.03 * best.square().mean()

    log_p = torch.stack([m.log_prob(z0) for m in modes]).logsumexp(0).sub(math.log(2)).mean()
    (reported,) = trainer().test(prior, data, verbose=False)
    assert reported["test/elbo"] == pytest.approx(log_p.item(), abs=0.35)
    assert reported["test/bpd"] == pytest.approx(-reported["test/elbo"] / D / math.log(2))


def test_validation_repeats_and_uses_the_averaged_weights(fitted):
    prior, data = fitted
    first, again = (trainer().validate(prior, data, verbose=False) for _ in range(2))
    assert first == again
    other_batches = LatentDataModule(data.store.path, batch_size=77)
    assert trainer().validate(prior, other_batches, verbose=False)[0] == pytest.approx(first[0], rel=1e-5)
    state = {k: torch.zeros_like(v) if k.startswith("net.") else v for k, v in prior.state_dict().items()}
    copy = LatentPrior(**prior.hparams)
    copy.load_state_dict(state)
    assert trainer().validate(copy, data, verbose=False) == first


def test_shared_time_equals_per_sample_time_between_levels(fitted):
    prior, _ = fitted
    z, t = torch.randn(5, D), torch.tensor([0.0, 0.4, 500.7, 998.5, 999.0])
    table = prior.time_table(t.double())
    for i in range(5):
        expected = prior(z, t[i].expand(5))
        torch.testing.assert_close(prior.forward_at(z, table[i]), expected, rtol=1e-5, atol=1e-5)

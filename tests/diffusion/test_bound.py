"""The estimate of the variational bound, against all of its terms and against the log-likelihood."""

import math

import pytest
import torch

from lcg_lightning.diffusion.bound import bits_per_dim, elbo_estimate
from lcg_lightning.diffusion.schedule import make_schedule
from tests.closed_forms import GaussianPrior, elbo, sigma_points


def diagonal_prior(d=16):
    g = torch.Generator().manual_seed(3)
    variance = torch.linspace(0.1, 2.5, d, dtype=torch.float64)
    return GaussianPrior(torch.randn(d, generator=g, dtype=torch.float64), torch.diag(variance))


def predictor(prior, schedule):
    """The exact noise prediction as a network sees it: one time per row."""

    def model(z, t):
        levels = schedule.alpha_bar[t]
        out = torch.empty_like(z)
        for a in levels.unique().tolist():
            rows = levels == a
            out[rows] = prior.eps(z[rows].double(), a).to(z)
        return out

    return model


def test_elbo_equals_the_log_likelihood_for_exact_gaussian_kernels():
    """Method 5.6. Sigma points make the expectation over the noise exact, so the only gap is the KL at T."""
    prior, schedule = diagonal_prior(), make_schedule("linear")
    x = prior.sample(3)
    points = sigma_points(prior.d)
    rows = x.repeat_interleave(len(points), 0)
    noise = points.repeat(3, 1)
    bound = elbo(predictor(prior, schedule), rows, schedule.alpha_bar, noise, prior.cov.diagonal())
    bound = bound.view(3, -1).mean(1)

    a = schedule.alpha_bar[-1].item()
    last = prior.noised(a)
    standard = GaussianPrior(torch.zeros(16, dtype=torch.float64), last.eye)
    noised = [GaussianPrior(math.sqrt(a) * row, (1 - a) * last.eye) for row in x]
    gap = torch.stack([q.kl(standard) - q.kl(last) for q in noised])
    torch.testing.assert_close(bound + gap, prior.log_prob(x), rtol=0, atol=1e-10)
    assert 5e-5 < last.kl(standard) < 1e-3  # its mean over data, method.md says 1-3e-4


def test_elbo_never_exceeds_the_log_likelihood_and_is_exact_for_a_standard_normal():
    schedule = make_schedule("cosine", 50)
    points = sigma_points(16)
    for prior, tight in ((GaussianPrior.random(), False), (GaussianPrior.random(low=1, high=1), True)):
        for v in (0.3, 1.0):
            x = prior.sample(1)
            bound = elbo(predictor(prior, schedule), x.expand(32, -1), schedule.alpha_bar, points, v).mean()
            gap = (prior.log_prob(x) - bound).item()
            assert gap > -1e-5
            assert (gap < 1e-5) == (tight and v == 1.0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_elbo_estimate_is_unbiased(name):
    """By quadrature: sigma points of the noise, and a fine grid of the uniform number that sets the times."""
    prior, schedule = diagonal_prior(), make_schedule(name, 100)
    variance = prior.cov.diagonal()
    model = predictor(prior, schedule)
    x, points = prior.sample(1), sigma_points(16)
    exact = elbo(model, x.expand(32, -1), schedule.alpha_bar, points, variance).mean()
    n, k = 1000, 3
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    noise = points[:, None].expand(-1, k, -1).repeat(n, 1, 1)  # (n 32, k, 16)
    estimate = elbo_estimate(model, x.expand(32 * n, -1), schedule, noise, uniform.repeat_interleave(32), variance)
    assert estimate.mean().item() == pytest.approx(exact.item(), abs=0.02)
    assert estimate.view(n, 32).mean(1).std() > 0.1  # the times do matter
    first = elbo_estimate(model, x.float(), schedule, noise[:1].float(), uniform[:1].float(), variance)
    torch.testing.assert_close(first, estimate[:1].float())


def test_bits_per_dim_of_a_uniform_density():
    """A density of 2^-d on a cube of side 2 takes one bit per dimension."""
    torch.testing.assert_close(bits_per_dim(torch.tensor([-10 * math.log(2)]), 10), torch.ones(1))

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from lcg_lightning.diffusion.bound import bits_per_dim, elbo, elbo_estimate
from lcg_lightning.diffusion.grids import full_grid, logsnr_grid, uniform_grid
from lcg_lightning.diffusion.schedule import eps_to_score, eps_to_x0, make_schedule, q_sample, score_to_eps, x0_to_eps
from lcg_lightning.errors import UserError
from tests.closed_forms import GaussianPrior, sigma_points


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


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("linear", {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
        ("constant", {"trained_betas": np.full(1000, 0.008)}),
    ],
)
def test_schedules_are_those_of_diffusers(name, theirs):
    expected = DDPMScheduler(num_train_timesteps=1000, **theirs).alphas_cumprod.double()
    torch.testing.assert_close(make_schedule(name).alpha_bar, expected, rtol=2e-5, atol=1e-9)  # theirs is float32


def test_fewer_steps_keep_the_total_noise_and_mistakes_are_named():
    for name in ("linear", "constant"):
        totals = [make_schedule(name, n).alpha_bar[-1].log().item() for n in (500, 1000, 4000)]
        assert totals == pytest.approx([totals[1]] * 3, rel=0.02)
    with pytest.raises(UserError, match="num_steps"):
        make_schedule("linear", 0)
    with pytest.raises(UserError, match="quadratic"):
        make_schedule("quadratic")
    with pytest.raises(UserError, match="1 to 1000"):
        uniform_grid(make_schedule("linear"), 1001)


@pytest.mark.parametrize("per_sample", [False, True])
def test_conversions_on_a_gaussian_prior(per_sample):
    """Method 5.1: eps, score, Tweedie, for one level and for one level per sample."""
    prior = GaussianPrior.random()
    z, a = prior.sample(4), [0.9, 0.5, 0.1, 1e-4]
    for i, level in enumerate(a):
        rows = slice(None) if not per_sample else slice(i, i + 1)
        arg = torch.tensor([level], dtype=torch.float64) if per_sample else level
        eps = prior.eps(z[rows], level)
        torch.testing.assert_close(eps_to_x0(z[rows], eps, arg), prior.tweedie(z[rows], level), rtol=0, atol=1e-11)
        torch.testing.assert_close(eps_to_score(eps, arg), prior.score(z[rows], level), rtol=0, atol=1e-12)
        torch.testing.assert_close(score_to_eps(eps_to_score(eps, arg), arg), eps, rtol=0, atol=1e-12)
        torch.testing.assert_close(x0_to_eps(z[rows], eps_to_x0(z[rows], eps, arg), arg), eps, rtol=0, atol=1e-11)
    noise = torch.randn_like(z)
    levels = torch.tensor(a, dtype=torch.float64)
    separately = torch.cat([q_sample(z[i : i + 1], a[i], noise[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(q_sample(z, levels, noise), separately)
    torch.testing.assert_close(x0_to_eps(q_sample(z, levels, noise), z, levels), noise)
    assert q_sample(z.float(), levels, noise.float()).dtype == torch.float32


def test_uniform_grid_is_trailing_spacing_and_the_full_grid_is_the_schedule():
    schedule = make_schedule("linear")
    theirs = DPMSolverMultistepScheduler(timestep_spacing="trailing")
    for n in (7, 20, 50):
        theirs.set_timesteps(n)
        assert list(uniform_grid(schedule, n).t) == theirs.timesteps.tolist()
    full = full_grid(schedule)
    assert full.t == tuple(map(float, range(999, -1, -1)))
    assert full.alpha_bar == (*schedule.alpha_bar.flip(0).tolist(), 1.0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("n", [2, 10, 25])
def test_logsnr_grid_against_diffusers(name, n):
    """Levels are those of `use_lu_lambdas`; times too, before it rounds (linear) or truncates (cosine)."""
    schedule = make_schedule(name)
    beta_schedule = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[name]
    theirs = DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_schedule=beta_schedule, use_lu_lambdas=True, final_sigmas_type="zero"
    )
    theirs.set_timesteps(n)
    grid = logsnr_grid(schedule, n)
    a = np.array(grid.alpha_bar)
    np.testing.assert_allclose(np.sqrt((1 - a) / a), theirs.sigmas.numpy(), rtol=1e-3)
    assert np.abs(np.array(grid.t) - theirs.timesteps.numpy()).max() <= (0.51 if name == "linear" else 1.0)
    assert np.ptp(np.diff(np.log(a[:-1] / (1 - a[:-1])))) < 1e-9
    assert (grid.t[0], grid.t[-1]) == (999.0, 0.0)
    assert len(grid.alpha_bar) == len(grid.t) + 1
    assert max(grid.alpha_bar[:-1]) < 1 == grid.alpha_bar[-1]


def test_elbo_equals_the_log_likelihood_for_exact_gaussian_kernels():
    """Method 5.6. Sigma points make the expectation over the noise exact, so the only gap is the KL at T."""
    prior, schedule = diagonal_prior(), make_schedule("linear")
    x = prior.sample(3)
    points = sigma_points(prior.d)
    rows = x.repeat_interleave(len(points), 0)
    noise = points.repeat(3, 1)
    bound = elbo(predictor(prior, schedule), rows, schedule, lambda t: noise, prior.cov.diagonal())
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
            bound = elbo(predictor(prior, schedule), x.expand(32, -1), schedule, lambda t: points, v).mean()
            gap = (prior.log_prob(x) - bound).item()
            assert gap > -1e-5
            assert (gap < 1e-5) == (tight and v == 1.0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_elbo_estimate_is_unbiased(name):
    prior, schedule = diagonal_prior(), make_schedule(name, 100)
    variance = prior.cov.diagonal()
    model = predictor(prior, schedule)
    x = prior.sample(1)
    points = sigma_points(16)
    exact = elbo(model, x.expand(32, -1), schedule, lambda t: points, variance).mean()
    g = torch.Generator().manual_seed(0)
    n, k = 4000, 3
    noise = torch.randn(n, k, 16, generator=g, dtype=torch.float64)
    uniform = torch.rand(n, generator=g, dtype=torch.float64)
    estimate = elbo_estimate(model, x.expand(n, -1), schedule, noise, uniform, variance)
    standard_error = estimate.std() / math.sqrt(n)
    assert abs(estimate.mean() - exact) < 4 * standard_error
    assert standard_error < 0.5
    first = elbo_estimate(model, x.float(), schedule, noise[:1].float(), uniform[:1].float(), variance)
    torch.testing.assert_close(first, estimate[:1].float())


def test_bits_per_dim_of_a_uniform_density():
    """A density of 2^-d on a cube of side 2 takes one bit per dimension."""
    torch.testing.assert_close(bits_per_dim(torch.tensor([-10 * math.log(2)]), 10), torch.ones(1))

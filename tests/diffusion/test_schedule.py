import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from lcg_lightning.diffusion.grids import logsnr_grid, observed_grid, uniform_grid
from lcg_lightning.diffusion.schedule import eps_to_x0, make_schedule, q_sample, x0_to_eps
from lcg_lightning.errors import UserError
from tests.closed_forms import GaussianPrior


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
    """Method 5.1: eps and Tweedie, for one level and for one level per sample."""
    prior = GaussianPrior.random()
    z, a = prior.sample(4), [0.9, 0.5, 0.1, 1e-4]
    for i, level in enumerate(a):
        rows = slice(None) if not per_sample else slice(i, i + 1)
        arg = torch.tensor([level], dtype=torch.float64) if per_sample else level
        eps = prior.eps(z[rows], level)
        torch.testing.assert_close(eps_to_x0(z[rows], eps, arg), prior.tweedie(z[rows], level), rtol=0, atol=1e-11)
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
    full = uniform_grid(schedule, 1000)
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
    grid = logsnr_grid(schedule, n, -math.inf, math.inf)
    a = np.array(grid.alpha_bar)
    np.testing.assert_allclose(np.sqrt((1 - a) / a), theirs.sigmas.numpy(), rtol=1e-3)
    assert np.abs(np.array(grid.t) - theirs.timesteps.numpy()).max() <= (0.51 if name == "linear" else 1.0)
    assert np.ptp(np.diff(np.log(a[:-1] / (1 - a[:-1])))) < 1e-9
    assert (grid.t[0], grid.t[-1]) == (999.0, 0.0)
    assert len(grid.alpha_bar) == len(grid.t) + 1
    assert max(grid.alpha_bar[:-1]) < 1 == grid.alpha_bar[-1]


def test_grids_cover_what_matters_and_never_leave_the_schedule():
    schedule = make_schedule("linear")
    np.testing.assert_allclose(logsnr(logsnr_grid(schedule, 9))[[0, -1]], [-7, 5], atol=1e-9)
    least = math.exp(-schedule.logsnr[0].item() / 2)
    equal, cleanest = 2 * math.log(4), schedule.logsnr[0].item()
    for tau, ends in ((1e6, [-7, 5]), (0.25, [equal - 3, equal + 2.5]), (least, [cleanest - 3, cleanest])):
        found = logsnr(observed_grid(schedule, 9, tau))
        assert np.ptp(np.diff(found)) < 1e-9
        np.testing.assert_allclose(found[[0, -1]], ends, atol=1e-9)


def logsnr(grid):
    a = np.array(grid.alpha_bar[:-1])
    return np.log(a) - np.log1p(-a)


def test_times_and_log_snr_are_inverse_and_linear_between_levels():
    for name in ("linear", "cosine"):
        schedule = make_schedule(name)
        t = torch.tensor([0.0, 0.25, 17.5, 500, 998.75, 999], dtype=torch.float64)
        assert schedule.time_at(schedule.logsnr_at(t).numpy()) == pytest.approx(t.tolist(), abs=1e-9)
        a = schedule.alpha_bar
        assert schedule.logsnr_at(t)[2].item() == pytest.approx((a[17] * a[18] / (1 - a[17]) / (1 - a[18])).log() / 2)
        torch.testing.assert_close(schedule.logsnr_at(torch.tensor([3, 999])).sigmoid(), a[[3, 999]])
        assert schedule.time_at([-math.inf, math.inf]) == [999, 0]
    assert make_schedule("linear", 1).logsnr_at(torch.tensor([0])).isfinite().all()

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from lcg_lightning.diffusion.grids import Grid, full_grid, logsnr_grid, uniform_grid
from lcg_lightning.diffusion.samplers import SAMPLERS, ddim, ddpm, dpmpp_2m, evaluations, heun, invert, langevin
from lcg_lightning.diffusion.schedule import make_schedule
from lcg_lightning.errors import UserError
from tests.closed_forms import GaussianPrior, affine_map, pushforward

SCHEDULE = make_schedule("linear")
PRIOR = GaussianPrior.random()


def start(n=5, d=16, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbered_noise(n=5, d=16):
    return lambda draw: start(n, d, 1000 + draw)


def covariance_error(sampler, grid, prior=PRIOR):
    reached = pushforward(lambda z: sampler(prior.eps_model(grid.alpha_bar), z, grid), prior.d)
    return ((reached.cov - prior.cov).norm() / prior.cov.norm()).item()


def curved_eps(grid):
    """A nonlinear prediction, so that no two samplers agree by accident."""
    return lambda z, i: torch.tanh(z.roll(1, -1)) * (1 - grid.alpha_bar[i]) ** 0.5 + 0.3 * z


def run_scheduler(scheduler, eps, z, times):
    """The sampling loop of diffusers; eps is asked for by position, as ours is."""
    for i, t in enumerate(times):
        z = scheduler.step(eps(z, i), t, z).prev_sample
    return z


def float64(scheduler):
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar.clone()
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_ddim_is_that_of_diffusers(eta):
    theirs = float64(DDIMScheduler(clip_sample=False, timestep_spacing="trailing"))
    theirs.set_timesteps(20)
    grid = uniform_grid(SCHEDULE, 20)
    eps, noise, z = curved_eps(grid), numbered_noise(), start()
    expected = z
    for i, t in enumerate(theirs.timesteps):
        expected = theirs.step(eps(expected, i), t, expected, eta=eta, variance_noise=noise(i)).prev_sample
    torch.testing.assert_close(ddim(eps, z, grid, eta=eta, noise=noise), expected, rtol=0, atol=1e-10)


def test_ddpm_is_that_of_diffusers(monkeypatch):
    theirs = DDPMScheduler(clip_sample=False, num_train_timesteps=100)
    schedule = make_schedule("linear", 100)
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    theirs.betas = 1 - theirs.alphas_cumprod / torch.cat([torch.ones(1), theirs.alphas_cumprod[:-1]])
    theirs.alphas = 1 - theirs.betas
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    grid, noise = full_grid(schedule), numbered_noise()
    eps, z = curved_eps(grid), start()
    draws = iter(range(100))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise(next(draws)))
    expected = run_scheduler(theirs, eps, z, theirs.timesteps)
    torch.testing.assert_close(ddpm(eps, z, grid, noise=noise), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [2, 10, 20])
def test_dpmpp_2m_is_that_of_diffusers(monkeypatch, n):
    """Given their levels, which are float32, the arithmetic agrees; on our own, the result does to 1e-3."""
    in_float64 = SimpleNamespace(**{**vars(torch), "float32": torch.float64})  # their step casts to float32
    monkeypatch.setattr("diffusers.schedulers.scheduling_dpmsolver_multistep.torch", in_float64)
    theirs = DPMSolverMultistepScheduler(
        use_lu_lambdas=True,
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type="zero",
        lower_order_final=True,
    )
    theirs.set_timesteps(n)
    theirs.sigmas = theirs.sigmas.double()
    levels = tuple((1 / (1 + theirs.sigmas**2)).tolist())
    grid = Grid(logsnr_grid(SCHEDULE, n).t, levels)
    eps, z = curved_eps(grid), start()
    expected = run_scheduler(theirs, eps, z, theirs.timesteps)
    torch.testing.assert_close(dpmpp_2m(eps, z, grid), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dpmpp_2m(eps, z, logsnr_grid(SCHEDULE, n)), expected, rtol=1e-3, atol=1e-3)


def test_ddim_covariance_error_falls_as_one_over_n():
    """Method 5.3: .156 .064 .013 .0033 at 20, 50, 250 and 1000 steps."""
    errors = [covariance_error(ddim, uniform_grid(SCHEDULE, n)) for n in (20, 50, 250, 1000)]
    assert errors == pytest.approx([0.156, 0.064, 0.013, 0.0033], rel=0.1)


@pytest.mark.parametrize("sampler", [dpmpp_2m, heun])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_second_order_samplers_converge_as_such_and_beat_ddim(sampler, name):
    """Halving the step quarters the error of all steps before the last, which is one of first order."""
    schedule = make_schedule(name)

    def to_noised(n):
        grid = logsnr_grid(schedule, n)
        grid = Grid(grid.t[:-1], grid.alpha_bar[:-1])  # ends at the cleanest noised level
        reached = pushforward(lambda z: sampler(PRIOR.eps_model(grid.alpha_bar), z, grid), 16)
        return (reached.cov - PRIOR.noised(grid.alpha_bar[-1]).cov).norm()

    assert 3.2 < to_noised(60) / to_noised(120) < 4.8
    grid = logsnr_grid(schedule, 20)
    assert covariance_error(sampler, grid) < 0.3 * covariance_error(ddim, grid)


def test_heun_is_exact_for_a_standard_normal():
    """The probability flow leaves standardized Gaussian data where they are; only the last step moves them."""
    grid = uniform_grid(SCHEDULE, 5)
    standard = GaussianPrior(torch.zeros(16, dtype=torch.float64), PRIOR.eye)
    z = start()
    scale = heun(standard.eps_model(grid.alpha_bar), z, grid) / z
    torch.testing.assert_close(scale, torch.full_like(z, grid.alpha_bar[-2] ** 0.5), rtol=0, atol=1e-12)


def stochastic_law(sampler, grid):
    """The exact law that a sampler with fresh noise reaches on the Gaussian prior, and the draws it used.

    The result is affine in the start and in every draw, so each is probed alone with the others at zero.
    """
    eps, zero, draws = PRIOR.eps_model(grid.alpha_bar), torch.zeros(1, 16, dtype=torch.float64), []

    def silent(draw):
        draws.append(draw)
        return zero

    offset = sampler(eps, zero, grid, noise=silent)
    cov = torch.zeros(16, 16, dtype=torch.float64)
    for source in ("start", *draws):
        z = PRIOR.eye if source == "start" else zero
        rows = sampler(eps, z, grid, noise=lambda d, s=source: PRIOR.eye if d == s else zero) - offset
        cov += rows.T @ rows
    return GaussianPrior(offset[0], cov), draws


def test_ancestral_sampling_reaches_the_prior_at_first_order():
    errors = []
    for n in (20, 40):
        law, draws = stochastic_law(ddpm, uniform_grid(SCHEDULE, n))
        assert draws == list(range(n - 1))  # the step to clean adds no noise
        errors.append(((law.cov - PRIOR.cov).norm() / PRIOR.cov.norm()).item())
    assert errors[1] < 0.2
    assert 1.7 < errors[0] / errors[1] < 2.3


def test_langevin_is_stationary_at_the_noised_marginal():
    """Its fixed point is that of z' = M z + offset + noise: the right mean, and the variance it promises."""
    grid, i, step = uniform_grid(SCHEDULE, 20), 12, 0.02
    a, silent = grid.alpha_bar[i], lambda _: torch.zeros(1, 16, dtype=torch.float64)
    eps, target = PRIOR.eps_model(grid.alpha_bar), PRIOR.noised(grid.alpha_bar[i])
    offset, matrix = affine_map(lambda z: langevin(eps, z, grid, i, silent, step=step), 16)
    torch.testing.assert_close(matrix @ target.mean + offset, target.mean, rtol=0, atol=1e-12)
    moved = langevin(eps, target.mean[None], grid, i, lambda _: PRIOR.eye[:1], step=step) - target.mean
    assert moved[0, 0].item() == pytest.approx((2 * step * (1 - a)) ** 0.5)
    stationary = moved[0, 0] ** 2 * torch.linalg.inv(PRIOR.eye - matrix @ matrix)  # M is symmetric
    inflation = torch.linalg.eigvals(torch.linalg.solve(target.cov, stationary)).real
    assert 1 < inflation.min() < inflation.max() <= 1 / (1 - step / 2)


def test_langevin_corrects_ddim():
    grid = uniform_grid(SCHEDULE, 20)
    corrector = partial(langevin, step=0.1, num_steps=3)
    law, draws = stochastic_law(partial(ddim, corrector=corrector), grid)
    assert len(set(draws)) == len(draws) == 3 * 19
    assert min(draws) >= 20  # those below belong to the sampler's own steps
    corrected = ((law.cov - PRIOR.cov).norm() / PRIOR.cov.norm()).item()
    assert corrected < 0.6 * covariance_error(ddim, grid)
    with pytest.raises(UserError, match="give noise"):
        ddim(curved_eps(grid), start(), grid, corrector=corrector)


def test_inversion_round_trip():
    """Method 5.7: an error near .08 for the explicit form at 50 steps; rounding alone with fixed points."""
    grid = uniform_grid(SCHEDULE, 50)
    eps, x = PRIOR.eps_model(grid.alpha_bar), PRIOR.sample(50)

    def error(k):
        return (ddim(eps, invert(eps, x, grid, fixed_point=k), grid) - x).abs().max().item()

    assert 0.04 < error(0) < 0.16
    assert error(20) < 2e-14


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_repeatable_keeps_dtype_and_counts_its_evaluations(name):
    grid = logsnr_grid(SCHEDULE, 6)
    calls = []

    def eps(z, i):
        calls.append(i)
        assert 0 <= i < 6
        return curved_eps(grid)(z, i)

    noise = numbered_noise()
    options = {"noise": lambda d: noise(d).float()} if name == "ddpm" else {}
    first, again = (SAMPLERS[name](eps, start().float(), grid, **options) for _ in range(2))
    assert torch.equal(first, again)
    assert first.dtype == torch.float32
    assert len(calls) == 2 * evaluations(name, grid)

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from lcg_lightning.diffusion.grids import Grid, logsnr_grid, uniform_grid
from lcg_lightning.diffusion.samplers import (
    PredictorCorrector,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_2m_secant,
    find_sampler,
    heun,
    invert,
    run,
    sampler_text,
    starting_at,
)
from lcg_lightning.diffusion.schedule import make_schedule
from lcg_lightning.errors import UserError
from tests.closed_forms import GaussianPrior, affine_map, pushforward

WHOLE = -math.inf, math.inf
"""The ends of a grid that covers all levels of its schedule."""
SCHEDULE = make_schedule("linear")
PRIOR = GaussianPrior.random()


def start(n=5, d=16, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbered_noise(n=5, d=16):
    return lambda draw: start(n, d, 1000 + draw if draw else 1)


def covariance_error(sampler, grid, prior=PRIOR):
    reached = pushforward(lambda z: sampler(prior.eps_model(grid.alpha_bar), starting_at(z), grid), prior.d)
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
        expected = theirs.step(eps(expected, i), t, expected, eta=eta, variance_noise=noise(i + 1)).prev_sample
    torch.testing.assert_close(ddim(eps, noise, grid, eta=eta), expected, rtol=0, atol=1e-10)


def test_ddpm_is_that_of_diffusers(monkeypatch):
    theirs = DDPMScheduler(clip_sample=False, num_train_timesteps=100)
    schedule = make_schedule("linear", 100)
    theirs.alphas_cumprod = schedule.alpha_bar.clone()
    theirs.betas = 1 - theirs.alphas_cumprod / torch.cat([torch.ones(1), theirs.alphas_cumprod[:-1]])
    theirs.alphas = 1 - theirs.betas
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    grid, noise = uniform_grid(schedule, schedule.num_steps), numbered_noise()
    eps, z = curved_eps(grid), start()
    draws = iter(range(1, 100))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise(next(draws)))
    expected = run_scheduler(theirs, eps, z, theirs.timesteps)
    torch.testing.assert_close(ddpm(eps, noise, grid), expected, rtol=0, atol=1e-10)


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
    grid = Grid(logsnr_grid(SCHEDULE, n, *WHOLE).t, levels)
    eps, z = curved_eps(grid), start()
    expected = run_scheduler(theirs, eps, z, theirs.timesteps)
    torch.testing.assert_close(dpmpp_2m(eps, starting_at(z), grid), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        dpmpp_2m(eps, starting_at(z), logsnr_grid(SCHEDULE, n, *WHOLE)), expected, rtol=1e-3, atol=1e-3
    )


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
        grid = logsnr_grid(schedule, n, *WHOLE)
        grid = Grid(grid.t[:-1], grid.alpha_bar[:-1])  # ends at the cleanest noised level
        reached = pushforward(lambda z: sampler(PRIOR.eps_model(grid.alpha_bar), starting_at(z), grid), 16)
        return (reached.cov - PRIOR.noised(grid.alpha_bar[-1]).cov).norm()

    assert 3.2 < to_noised(60) / to_noised(120) < 4.8
    grid = logsnr_grid(schedule, 20, *WHOLE)
    assert covariance_error(sampler, grid) < 0.3 * covariance_error(ddim, grid)


def linear_pull(eigenvalues, grid):
    """x_0 = 1 + A (x - 1) with x = z / sqrt(a), as a noise prediction, and the flow's exact result.

    dx/dt = x_0 - x, so x - 1 grows by expm((A - 1) t) in half the log-SNR t.
    """
    d = len(eigenvalues)
    q, _ = torch.linalg.qr(start(d, d, seed=7))
    pull = (q * torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T
    half = torch.logit(torch.tensor(grid.alpha_bar[:-1], dtype=torch.float64)) / 2

    def eps(z, i):
        a = grid.alpha_bar[i]
        x = z / a**0.5
        return (x - 1 - (x - 1) @ pull) * (a / (1 - a)) ** 0.5

    def exact(z, i, j):
        x = z / grid.alpha_bar[i] ** 0.5
        grown = torch.linalg.matrix_exp((pull - torch.eye(d, dtype=torch.float64)) * (half[j] - half[i]))
        return grid.alpha_bar[j] ** 0.5 * (1 + (x - 1) @ grown)

    return eps, exact


def test_secant_steps_are_exact_for_a_linear_pull():
    """After the first step, which has no history; the plain form grows by 1.7 a step there."""
    grid = logsnr_grid(SCHEDULE, 12)
    eps, exact = linear_pull([-3.0] * 16, grid)
    grid = Grid(grid.t[:-1], grid.alpha_bar[:-1])  # without the step to clean
    first = ddim(eps, starting_at(start()), Grid(grid.t[:1], grid.alpha_bar[:2]))
    expected = exact(first, 1, len(grid.t))
    torch.testing.assert_close(dpmpp_2m_secant(eps, starting_at(start()), grid), expected, rtol=1e-10, atol=1e-10)
    assert (dpmpp_2m(eps, starting_at(start()), grid) - expected).abs().max() > 100


def test_secant_steps_are_of_second_order_and_better_where_stiff():
    def error(sampler, n):
        grid = logsnr_grid(SCHEDULE, n)
        eps, exact = linear_pull([-3.0, -2.5, 0.0, 0.3, 0.5, 0.5, 0.7, 0.8], grid)
        grid = Grid(grid.t[:-1], grid.alpha_bar[:-1])
        z = start(d=8)
        return (sampler(eps, starting_at(z), grid) - exact(z, 0, n - 1)).norm().item()

    assert error(dpmpp_2m_secant, 12) < 0.1 * error(dpmpp_2m, 12)
    assert 3 < error(dpmpp_2m_secant, 80) / error(dpmpp_2m_secant, 160) < 5


def test_heun_is_exact_for_a_standard_normal():
    """The probability flow leaves standardized Gaussian data where they are; only the last step moves them."""
    grid = uniform_grid(SCHEDULE, 5)
    standard = GaussianPrior(torch.zeros(16, dtype=torch.float64), PRIOR.eye)
    z = start()
    scale = heun(standard.eps_model(grid.alpha_bar), starting_at(z), grid) / z
    torch.testing.assert_close(scale, torch.full_like(z, grid.alpha_bar[-2] ** 0.5), rtol=0, atol=1e-12)


def stochastic_law(sampler, grid):
    """The exact law that a sampler with fresh noise reaches on the Gaussian prior, and the draws it used.

    The result is affine in every draw, so each is probed alone with the others at zero.
    """
    eps, zero, draws = PRIOR.eps_model(grid.alpha_bar), torch.zeros(1, 16, dtype=torch.float64), []

    def silent(draw):
        draws.append(draw)
        return zero

    offset = sampler(eps, silent, grid)
    cov = torch.zeros(16, 16, dtype=torch.float64)
    for probed in draws:
        rows = sampler(eps, lambda draw, p=probed: PRIOR.eye if draw == p else zero, grid) - offset
        cov += rows.T @ rows
    return GaussianPrior(offset[0], cov), draws


def test_ancestral_sampling_reaches_the_prior_at_first_order():
    errors = []
    for n in (20, 40):
        law, draws = stochastic_law(ddpm, uniform_grid(SCHEDULE, n))
        assert draws == list(range(n))  # the start and n - 1 steps; the step to clean adds no noise
        errors.append(((law.cov - PRIOR.cov).norm() / PRIOR.cov.norm()).item())
    assert errors[1] < 0.2
    assert 1.7 < errors[0] / errors[1] < 2.3


def test_corrections_are_stationary_at_the_noised_marginal():
    """The fixed point of z' = M z + offset + noise at one level: the right mean, and the variance that is promised."""
    whole, step = uniform_grid(SCHEDULE, 20), 0.02
    a = whole.alpha_bar[12]
    grid = Grid((whole.t[12],) * 2, (a, a, a))  # a DDIM step that stays where it is, then one correction, then another
    eps = PRIOR.eps_model(grid.alpha_bar)
    target, zero = PRIOR.noised(a), torch.zeros(1, 16, dtype=torch.float64)
    sampler = PredictorCorrector(1, step)
    offset, matrix = affine_map(lambda z: sampler(eps, lambda draw: zero if draw else z, grid), 16)
    torch.testing.assert_close(matrix @ target.mean + offset, target.mean, rtol=0, atol=1e-12)
    moved = sampler(eps, lambda draw: PRIOR.eye[:1] if draw else target.mean[None], grid) - target.mean
    assert moved[0, 0].item() == pytest.approx((2 * step * (1 - a)) ** 0.5)
    stationary = moved[0, 0] ** 2 * torch.linalg.inv(PRIOR.eye - matrix @ matrix)  # M is symmetric
    inflation = torch.linalg.eigvals(torch.linalg.solve(target.cov, stationary)).real
    assert 1 < inflation.min() < inflation.max() <= 1 / (1 - step / 2)


def test_corrections_bring_ddim_nearer_to_the_prior():
    grid = uniform_grid(SCHEDULE, 20)
    law, draws = stochastic_law(PredictorCorrector(3, 0.1), grid)
    assert draws == list(range(1 + 3 * 19))  # the start, then fresh noise for every correction
    corrected = ((law.cov - PRIOR.cov).norm() / PRIOR.cov.norm()).item()
    assert corrected < 0.6 * covariance_error(ddim, grid)
    for options in ({"corrections": 0}, {"step_size": 0.0}, {"step_size": float("nan")}):
        with pytest.raises(UserError, match="predictor-corrector"):
            PredictorCorrector(**options)


def test_inversion_round_trip():
    """Method 5.7: an error near .08 for the explicit form at 50 steps; rounding alone with fixed points."""
    grid = uniform_grid(SCHEDULE, 50)
    eps, x = PRIOR.eps_model(grid.alpha_bar), PRIOR.sample(50)

    def error(k):
        return (ddim(eps, starting_at(invert(eps, x, grid, fixed_point=k)), grid) - x).abs().max().item()

    assert 0.04 < error(0) < 0.16
    assert error(20) < 2e-14


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [("ddpm", 6), ("ddim", 6), ("dpmpp_2m", 6), ("dpmpp_2m_secant", 6), ("heun", 11), (PredictorCorrector(2), 16)],
)
def test_every_sampler_is_repeatable_keeps_dtype_and_is_counted(sampler, evaluations):
    grid = logsnr_grid(SCHEDULE, 6, *WHOLE)
    noise = numbered_noise()

    def eps(z, i):
        assert 0 <= i < 6
        return curved_eps(grid)(z, i)

    results = [run(lambda e: find_sampler(sampler)(e, lambda d: noise(d).float(), grid), eps) for _ in range(2)]
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][0].dtype == torch.float32
    assert [used for _, used in results] == [evaluations] * 2


def test_samplers_are_named_in_records():
    names = [sampler_text(s) for s in ("ddim", ddim, PredictorCorrector(2, 0.25))]
    room = "lcg_lightning.diffusion.samplers"
    assert names == ["ddim", f"{room}.ddim", f"{room}.PredictorCorrector(corrections=2, step_size=0.25)"]
    with pytest.raises(UserError, match="unknown sampler 'dimm'; use ddpm, ddim, dpmpp_2m, dpmpp_2m_secant, heun or"):
        find_sampler("dimm")


@pytest.mark.parametrize(("broken", "value"), [(4, float("nan")), (1, float("inf"))])
def test_latents_that_are_not_finite_stop_with_the_step(broken, value):
    grid = logsnr_grid(SCHEDULE, 6, *WHOLE)

    def eps(z, i):
        out = curved_eps(grid)(z, i)
        if i == broken:
            out[2, 3] = value
        return out

    for sampler in (ddim, dpmpp_2m, ddpm):
        with pytest.raises(UserError, match=rf"1 of 5 samples are not finite at step {broken + 1}; lower"):
            run(lambda e, s=sampler: s(e, numbered_noise(), grid), eps)
    with pytest.raises(UserError, match="after the last step"):
        run(lambda e: ddim(e, numbered_noise(), grid) / 0, curved_eps(grid))

"""The fused guided step against exact Gaussian answers, in float64."""

import math

import numpy as np
import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import And, Is, Not, Or, Scaled, log_prob
from lcg_lightning.diffusion.grids import logsnr_grid, observed_grid, uniform_grid
from lcg_lightning.diffusion.guidance import Source, guide
from lcg_lightning.diffusion.samplers import dpmpp_2m, invert
from lcg_lightning.diffusion.schedule import make_schedule
from lcg_lightning.errors import UserError
from lcg_lightning.networks.latent import LatentClassifierNet, LatentMLP
from tests.closed_forms import GaussianPrior

D = 16
SCHEDULE = make_schedule("linear")
GRID = logsnr_grid(SCHEDULE, 12, -math.inf, math.inf)
LEVELS = GRID.alpha_bar[:-1]
BEYOND = 5e-5
"""Tolerance where source and z_t together are less noisy than the schedule's first level, which stands in."""
BINARY = AttributeSchema((Attribute("a"), Attribute("b"), Attribute("c")))


class Exact:
    """A network given by a function of (z, level); counts its calls."""

    def __init__(self, function):
        self.function = function
        self.calls = 0

    def time_table(self, t):
        logsnr = torch.logit(SCHEDULE.alpha_bar).numpy()
        return torch.sigmoid(torch.from_numpy(np.interp(t.numpy(), np.arange(1000), logsnr))).tolist()

    def forward_at(self, z, a):
        self.calls += 1
        return self.function(z, a)


def logit_of(log_p):
    return log_p - torch.log(-torch.expm1(log_p))


def linear_log_prob(*gradients):
    """Binary heads whose log-probabilities have these constant gradients: sigmoid is exp so far out."""
    return lambda z, a: torch.stack([z @ g.to(z) - 100 for g in gradients], 1)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(model, target, tolerance=1e-11, cleanest=1e-11):
    """An EpsModel predicts the noise of target, a distribution of clean latents with ``eps(z, a)``."""
    z = draw(5, D, seed=9)
    for i, a in enumerate(LEVELS):
        if i == len(LEVELS) - 1:
            tolerance = cleanest
        torch.testing.assert_close(model(z, i), target.eps(z, a), rtol=tolerance, atol=tolerance)


def ddim(model, z, grid):
    for i, (a, b) in enumerate(zip(grid.alpha_bar, grid.alpha_bar[1:], strict=False)):
        eps = model(z, i)
        z = math.sqrt(b) * (z - math.sqrt(1 - a) * eps) / math.sqrt(a) + math.sqrt(1 - b) * eps
    return z


PRIOR = GaussianPrior.random(D)
PRIOR_NET = Exact(PRIOR.eps)


def test_gaussian_likelihood_gives_the_exact_posterior():
    A, G, y = draw(1, D, seed=1), torch.tensor([[0.3]], dtype=torch.float64), draw(1, seed=2)

    def head(z, a):
        variance = (A @ PRIOR.posterior_cov(a) @ A.T + G).log().expand(len(z), 1)
        return torch.cat([PRIOR.tweedie(z, a) @ A.T, variance], 1)

    schema = AttributeSchema((Attribute("y", "continuous"),))
    model = guide(PRIOR_NET, Exact(head), Is("y", y.item()), schema, SCHEDULE, GRID)
    assert_same(model, PRIOR.observe(A, G, y))


def test_log_linear_classifier_tilts_the_prior():
    w = 0.3 * draw(D, seed=3)
    heads = Exact(lambda z, a: linear_log_prob(PRIOR.tilt_gradient(a, w))(z, a))
    condition = Is("a")
    model = guide(PRIOR_NET, heads, condition, AttributeSchema((Attribute("a"),)), SCHEDULE, GRID, scale=2.5)
    assert_same(model, PRIOR.tilt(2.5 * w))


def test_a_tree_takes_one_pass_and_equals_the_sum_of_gradients_of_logistic_terms():
    w = 0.5 * draw(3, D, seed=4)
    heads = Exact(lambda z, a: torch.stack([logit_of(PRIOR.logistic_log_prob(z, a, v)) for v in w], 1))
    condition = And((Is("a"), Scaled(2.0, Or((Not(Is("b")), Is("c"))))))
    model = guide(PRIOR_NET, heads, condition, BINARY, SCHEDULE, GRID, scale=1.5)
    z = draw(5, D, seed=9).requires_grad_()
    for i, a in enumerate(LEVELS):
        p = [PRIOR.logistic_log_prob(z, a, v).exp() for v in w]
        terms = [PRIOR.log_prob(z, a), 1.5 * p[0].log(), 3 * (1 - p[1] * (1 - p[2])).log()]
        score = sum(torch.autograd.grad(t.sum(), z)[0] for t in terms)
        before = heads.calls
        torch.testing.assert_close(model(z, i), -math.sqrt(1 - a) * score, rtol=1e-10, atol=1e-10)
        assert heads.calls == before + 1


class Mixture:
    """A mixture of Gaussians as a prior of clean latents."""

    def __init__(self, parts, weights):
        self.parts, self.weights = parts, weights

    def eps(self, z, a):
        with torch.enable_grad():
            z = z.detach().clone().requires_grad_()
            log_p = [p.log_prob(z, a) + math.log(w) for p, w in zip(self.parts, self.weights, strict=True)]
            (score,) = torch.autograd.grad(torch.logsumexp(torch.stack(log_p), 0).sum(), z)
        return -math.sqrt(1 - a) * score

    def observe(self, A, G, y):
        evidence = [
            torch.distributions.MultivariateNormal(A @ p.mean, A @ p.cov @ A.T + G).log_prob(y).item()
            for p in self.parts
        ]
        weights = [w * math.exp(e - max(evidence)) for w, e in zip(self.weights, evidence, strict=True)]
        total = sum(weights)
        return Mixture([p.observe(A, G, y) for p in self.parts], [w / total for w in weights])


@pytest.mark.parametrize("tau", [0.2, 1.0, 3.0])
def test_observed_source_is_exact_under_any_prior(tau):
    eye = torch.eye(D, dtype=torch.float64)
    mixture = Mixture([PRIOR, GaussianPrior(-PRIOR.mean, 0.5 * eye)], [0.3, 0.7])
    source = Source(0.3 * draw(1, D, seed=5), tau=tau)
    for prior in (PRIOR, mixture):
        model = guide(Exact(prior.eps), None, None, BINARY, SCHEDULE, GRID, source=source)
        assert_same(model, prior.observe(eye, tau**2 * eye, source.z[0]), 1e-10, BEYOND)


def test_observed_source_with_a_classifier():
    eye, w, tau = torch.eye(D, dtype=torch.float64), 0.3 * draw(D, seed=3), 0.7
    source = Source(draw(1, D, seed=5), tau=tau)
    heads = Exact(lambda z, a: linear_log_prob(PRIOR.tilt_gradient(a, w))(z, a))
    args = (Is("a"), AttributeSchema((Attribute("a"),)), SCHEDULE, GRID)
    model = guide(PRIOR_NET, heads, *args, scale=2.0, source=source)
    assert_same(model, PRIOR.observe(eye, tau**2 * eye, source.z[0]).tilt(2 * w), cleanest=BEYOND)

    flat = Exact(lambda z, a: linear_log_prob(w / math.sqrt(a))(z, a))
    model = guide(None, flat, *args, scale=2.0, source=source)
    assert_same(model, GaussianPrior(source.z[0] + tau**2 * 2 * w, tau**2 * eye), cleanest=BEYOND)


def test_latent_arithmetic_is_the_limit_without_a_prior_from_any_start():
    w = draw(2, D, seed=3)
    condition = And((Scaled(0.7, Is("a")), Scaled(1.9, Is("b"))))
    schema = AttributeSchema((Attribute("a"), Attribute("b")))
    z_src, grid = draw(4, D, seed=5), uniform_grid(SCHEDULE, 10)
    expected = z_src + 0.7 * w[0] + 1.9 * w[1]

    eta = Source(z_src, "bayes", eta=1.0)
    growing = Exact(lambda z, a: linear_log_prob(*(math.sqrt(a) / (1 - a) * w))(z, a) - 1e4)
    tau = 1e-9
    clean = Exact(linear_log_prob(*w))
    for model in (
        guide(None, growing, condition, schema, SCHEDULE, grid, source=eta),
        guide(None, clean, condition, schema, SCHEDULE, grid, scale=tau**-2, source=Source(z_src, tau=tau)),
    ):
        result = ddim(model, draw(4, D, seed=6), grid)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tau", [0.25, 1.2])
def test_an_edit_on_the_observed_grid_is_arithmetic_but_for_what_noisier_levels_would_add(tau):
    """Its start lacks the shift of its level, which the flow carries on by sqrt(a tau^2 / (1 - a + a tau^2))."""
    g, z, grid = 0.3 * draw(D, seed=6), draw(5, D, seed=7), observed_grid(SCHEDULE, 200, tau)
    heads = Exact(lambda u, a: linear_log_prob(g / a**0.5)(u, a))
    source = Source(z, tau=tau)
    about = BINARY, SCHEDULE, grid
    start = invert(guide(None, None, None, *about, source=source), z, grid, fixed_point=40)
    edited = ddim(guide(None, heads, Is("a"), *about, scale=2.0, source=source), start, grid)
    a = grid.alpha_bar[0]
    share = 1 - math.sqrt(a * tau**2 / (1 - a + a * tau**2))
    assert share == pytest.approx(0.78, abs=0.005)
    torch.testing.assert_close(edited - z, (share * 2 * tau**2 * g).expand(5, D), rtol=0.02, atol=1e-9)


def test_fixed_points_of_bayes_and_likelihood_sources():
    w, z_src, grid = draw(D, seed=3), draw(4, D, seed=5), logsnr_grid(SCHEDULE, 20)
    heads, schema = Exact(linear_log_prob(w)), AttributeSchema((Attribute("a"),))
    model = guide(PRIOR_NET, heads, Is("a"), schema, SCHEDULE, grid, source=Source(z_src, "bayes", eta=1.0))
    last = grid.alpha_bar[-2]
    trapped = z_src + (1 - last) / math.sqrt(last) * w
    torch.testing.assert_close(ddim(model, draw(4, D), grid), trapped, rtol=0, atol=1e-12)

    z, i = draw(4, D), 7
    a = grid.alpha_bar[i]
    eps_src = (z - math.sqrt(a) * z_src) / math.sqrt(1 - a)
    for form, share in (("bayes", 0.6), ("likelihood", 1.0)):
        model = guide(PRIOR_NET, None, None, schema, SCHEDULE, grid, source=Source(z_src, form, eta=0.4))
        torch.testing.assert_close(model(z, i), share * PRIOR.eps(z, a) + 0.4 * eps_src)


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return LatentMLP(D, 32, 3), LatentClassifierNet(D, 3, hidden=32, layers=3)


def test_fused_step_equals_one_gradient_per_attribute(networks):
    prior, classifier = networks
    grid = uniform_grid(SCHEDULE, 10)
    z, values = torch.randn(6, D), torch.tensor([1.0, 0, 1, math.nan, 0, 1])
    condition = And((Is("a", values), Scaled(3.0, Is("b")), Not(Is("c"))))
    with torch.inference_mode():  # as Lightning's predict and test loops do
        model = guide(prior, classifier, condition, BINARY, SCHEDULE, grid, scale=2.0)
        fused = [model(z + 0, i) for i in range(10)]
    for i, (t, a) in enumerate(zip(grid.t, grid.alpha_bar, strict=False)):
        time = torch.full((6,), t)
        expected = prior(z, time).detach()
        for term in condition.terms:
            x = z.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(log_prob(term, classifier(x, time), BINARY).sum(), x)
            expected -= 2 * math.sqrt(1 - a) * gradient
        torch.testing.assert_close(fused[i], expected, rtol=1e-5, atol=1e-5)
    assert all(p.grad is None for p in classifier.parameters())


def test_outside_the_interval_the_classifier_is_not_called(networks):
    prior, _ = networks
    classifier = Exact(linear_log_prob(*draw(3, D).float()))
    model = guide(prior, classifier, Is("a"), BINARY, SCHEDULE, GRID, interval=(0.2, 0.6))
    plain = guide(prior, None, None, BINARY, SCHEDULE, GRID)
    z = torch.randn(2, D)
    for i, t in enumerate(GRID.t):
        before = classifier.calls
        inside = 0.2 * 999 <= t <= 0.6 * 999
        assert torch.equal(model(z, i), plain(z, i)) is not inside
        assert classifier.calls - before == inside


def test_what_cannot_be_guided_is_refused(networks):
    prior, classifier = networks
    z = torch.zeros(1, D)
    with pytest.raises(UserError, match="needs a classifier"):
        guide(prior, None, Is("a"), BINARY, SCHEDULE, GRID)
    with pytest.raises(UserError, match="give a prior or a source"):
        guide(None, classifier, Is("a"), BINARY, SCHEDULE, GRID)
    wrong = [{}, {"eta": 1.0}, {"form": "bayes", "tau": 1.0}, *({"tau": x} for x in (0.0, -1.0, math.nan, math.inf))]
    for arguments in [*wrong, *({"form": "likelihood", "eta": x} for x in (-0.1, 1.5, math.nan))]:
        with pytest.raises(UserError, match="source"):
            Source(z, **arguments)
    for scale in (-1.0, 1e308, math.inf, math.nan):
        with pytest.raises(UserError, match=r"scale is .*; give a number from 0 to 1e30"):
            guide(prior, classifier, Is("a"), BINARY, SCHEDULE, GRID, scale=scale)
    for interval in ((0.6, 0.2), (-0.1, 1.0), (0.0, 1.5), (0.0, math.nan)):
        with pytest.raises(UserError, match=r"interval is .*; give two fractions"):
            guide(prior, classifier, Is("a"), BINARY, SCHEDULE, GRID, interval=interval)
    with pytest.raises(UserError, match=r"tau is 0\.009, but the schedule's cleanest level is 0\.01"):
        guide(prior, classifier, Is("a"), BINARY, SCHEDULE, GRID, source=Source(z, tau=0.009))


def test_an_observed_source_bounds_the_times_of_guidance(networks):
    """u is never noisier than the source, so an interval above the time of tau is refused, not ignored."""
    prior, classifier = networks
    tau = 0.5
    a = 1 / (1 + tau**2)  # the level whose noise is tau relative to its signal
    bound = (SCHEDULE.alpha_bar > a).sum().item() / 999
    source = Source(torch.zeros(1, D), tau=tau)
    asked = guide(prior, classifier, Is("a"), BINARY, SCHEDULE, GRID, interval=(bound - 0.01, 1.0), source=source)
    unasked = guide(prior, None, None, BINARY, SCHEDULE, GRID, source=source)
    z = torch.randn(2, D)
    assert not torch.equal(asked(z, 0), unasked(z, 0))
    with pytest.raises(UserError, match=r"the interval .* holds no time .* those lie from 0\.00 to 0\.14"):
        guide(prior, classifier, Is("a"), BINARY, SCHEDULE, GRID, interval=(bound + 0.01, 1.0), source=source)


def test_a_sure_head_does_not_make_a_large_scale_diverge():
    schema = AttributeSchema((Attribute("age", "continuous"),))
    prior = Exact(lambda z, a: math.sqrt(1 - a) * z)  # of a standard Gaussian

    def age(z, a):  # exactly linear in one coordinate
        mean, variance = 0.5 + 0.15 * math.sqrt(a) * z[:, 0], 0.15**2 * (1 - a)
        return torch.stack([mean, torch.full_like(mean, math.log(variance))], 1)

    grid = logsnr_grid(SCHEDULE, 20)
    model = guide(prior, Exact(age), Is("age", 0.7), schema, SCHEDULE, grid, scale=4.0)
    result = dpmpp_2m(model, lambda _: draw(64, 2), grid)
    assert (0.5 + 0.15 * result[:, 0] - 0.7).abs().max() < 0.1

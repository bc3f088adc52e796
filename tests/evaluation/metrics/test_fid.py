from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics import FrechetDistance
from lcg_lightning.evaluation.metrics.base import Setting
from lcg_lightning.evaluation.metrics.frechet import frechet_distance


def distance(width):
    metric = FrechetDistance()
    metric.prepare(Setting(AttributeSchema(()), networks={"features": "any @0"}, num_features=width))
    return metric


def generated(metric, features, index):
    metric.update(SimpleNamespace(result=SimpleNamespace(features=features), index=index))


def reference(metric, features, index):
    metric.update_reference(SimpleNamespace(features=features), index)


def covariance(generator, d, rank):
    factor = torch.randn(d, rank, generator=generator, dtype=torch.float64)
    return factor @ factor.T / rank


def test_frechet_distance_agrees_with_sqrtm():
    g = torch.Generator().manual_seed(0)
    a, b = covariance(g, 24, 60), covariance(g, 24, 60)
    mu = torch.randn(2, 24, generator=g, dtype=torch.float64)
    root = scipy.linalg.sqrtm((a @ b).numpy()).real
    expected = ((mu[0] - mu[1]) ** 2).sum().item() + np.trace(a.numpy() + b.numpy() - 2 * root)
    assert frechet_distance(mu[0], a, mu[1], b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(mu[1], b, mu[0], a) == pytest.approx(expected, rel=1e-10)
    above = torch.full_like(a, 1e14).triu(1)  # means nothing
    assert frechet_distance(mu[0], a.tril() + above, mu[1], b.tril() + above) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rank", [40, 7])
def test_frechet_distance_of_commuting_gaussians(rank):
    """Covariances V diag(s) V^T and V diag(t) V^T have distance sum (sqrt s - sqrt t)^2, of any rank."""
    g = torch.Generator().manual_seed(1)
    v = torch.linalg.qr(torch.randn(40, 40, generator=g, dtype=torch.float64))[0]
    s, t = torch.rand(2, 40, generator=g, dtype=torch.float64)
    s[rank:], t[: 40 - rank] = 0, 0
    zero = torch.zeros(40)
    value = frechet_distance(zero, v * s @ v.T, zero, v * t @ v.T)
    assert value == pytest.approx((s.sqrt() - t.sqrt()).square().sum().item(), rel=1e-12)
    assert frechet_distance(zero, v * s @ v.T, zero, v * s @ v.T) == pytest.approx(0, abs=1e-12)


HARD = (
    "falling variances",
    "falling against flat",
    "ranks 7 and 20",
    "spaces that share a part",
    "spaces apart",
    "nearly the same",
)


def factors(case):
    """Integers times powers of two, so that F F^T is exact in float64 and so is its rank."""
    rng = np.random.default_rng(4)
    f, g = rng.integers(-4, 5, (2, 24, 24)).astype(float)
    falling = 4.0 ** -(np.arange(24) // 2)  # variances down to 2^-44
    if case == "falling variances":
        return f * falling, g * falling
    if case == "falling against flat":
        return f * falling**0.5, g
    if case == "ranks 7 and 20":
        return f[:, :7], g[:, :20]
    if case == "spaces that share a part":  # where squaring alone loses half the digits
        return np.pad(f[:16, :16], ((0, 8), (0, 0))), np.pad(g[:16, :16], ((8, 0), (0, 0)))
    if case == "spaces apart":
        return f[:, :12] * (np.arange(24)[:, None] < 12), g[:, :12] * (np.arange(24)[:, None] >= 12)
    return f * falling, f * np.where(np.arange(24) == 3, 1 + 2.0**-12, 1) * falling  # nearly the same


@pytest.mark.parametrize("case", HARD)
def test_hard_covariances_agree_with_arithmetic_of_60_digits(case):
    f, g = factors(case)
    with mpmath.workdps(60):
        cross = mpmath.matrix(f.tolist()).T * mpmath.matrix(g.tolist())
        squares = mpmath.eigsy(cross * cross.T, eigvals_only=True)
        trace = sum(mpmath.mpf(v) ** 2 for x in (f, g) for v in x.flat)
        expected = float(trace - 2 * sum(mpmath.sqrt(max(v, 0)) for v in squares))
    zero, a, b = torch.zeros(24), *(torch.from_numpy(x @ x.T) for x in (f, g))
    for value in (frechet_distance(zero, a, zero, b), frechet_distance(zero, b, zero, a)):
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-14 * float(trace))


def test_fewer_samples_than_features_agrees_with_the_cross_gram():
    """tr (C1 C2)^(1/2) is the nuclear norm of X Y^T for centred, scaled rows X and Y."""
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(12, 64, generator=g), torch.randn(15, 64, generator=g) * 2 + 1
    metric = distance(64)
    generated(metric, x, torch.arange(12))
    reference(metric, y, torch.arange(15))
    a, b = ((z.double() - z.double().mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    expected = (x.double().mean(0) - y.double().mean(0)).square().sum() + a.square().sum() + b.square().sum()
    expected -= 2 * torch.linalg.svdvals(a @ b.T).sum()
    assert metric.compute()["fid"].value == pytest.approx(expected.item(), rel=1e-10)


def test_interval_has_the_width_that_repeated_sampling_shows():
    """The jackknife's standard error against the spread over 150 independent draws of 400 samples."""
    g = torch.Generator().manual_seed(3)
    values, halves = [], []
    for _ in range(150):
        metric = distance(4)
        generated(metric, torch.randn(400, 4, generator=g) + 0.7, torch.arange(400))
        reference(metric, torch.randn(400, 4, generator=g), torch.arange(400))
        value, low, high = metric.compute()["fid"]
        values.append(value)
        halves.append((high - low) / 2)
    error = np.sqrt(np.mean(np.square(halves))) / 2.262  # Student, 9 degrees of freedom
    assert error == pytest.approx(np.std(values), rel=0.2)


def test_too_few_or_broken_features_are_refused():
    metric = distance(2)
    reference(metric, torch.randn(5, 2), torch.arange(5))
    generated(metric, torch.randn(1, 2), torch.arange(1))
    with pytest.raises(UserError, match="1 generated, 5 reference samples"):
        metric.compute()
    generated(metric, torch.tensor([[torch.nan, 1.0]]), torch.tensor([1]))
    with pytest.raises(UserError, match="not finite"):
        metric.compute()


def test_no_interval_where_a_group_is_all_there_is():
    metric = distance(2)
    for add in (generated, reference):
        add(metric, torch.randn(5, 2), 10 * torch.arange(5))
    assert np.isnan(metric.compute()["fid"].low)

import numpy as np
import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics import AttributeAccuracy, IdentityCosine, UntouchedDrift
from lcg_lightning.evaluation.metrics.intervals import bootstrap_mean, jackknife


def test_bootstrap_agrees_with_the_normal_interval():
    x = np.random.default_rng(1).exponential(size=(4000, 2))
    x[::4, 1] = np.nan
    for column, estimate in zip(x.T, bootstrap_mean(x), strict=True):
        counted = column[~np.isnan(column)]
        half = 1.96 * counted.std() / len(counted) ** 0.5
        assert estimate.value == pytest.approx(counted.mean(), rel=1e-12)
        assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.08)


def test_bootstrap_does_not_depend_on_how_resamples_are_blocked(monkeypatch):
    x = np.random.default_rng(2).normal(size=(50, 3))
    whole = bootstrap_mean(x)
    monkeypatch.setattr("lcg_lightning.evaluation.metrics.intervals._BLOCK", 50 * 7)
    np.testing.assert_allclose(bootstrap_mean(x), whole, rtol=1e-12)


def test_jackknife_of_a_mean_is_its_classical_standard_error():
    x = np.random.default_rng(3).normal(size=10)
    estimate = jackknife(x.mean(), [np.delete(x, i).mean() for i in range(10)])
    assert (estimate.high - estimate.low) / 2 == pytest.approx(2.262157 * x.std(ddof=1) / 10**0.5, rel=1e-6)


def test_what_cannot_be_measured_is_refused():
    schema = AttributeSchema((Attribute("Smiling"),))
    none, one = torch.full((1, 1), torch.nan), torch.ones(1, 1)
    identity, accuracy, drift = IdentityCosine(), AttributeAccuracy(schema), UntouchedDrift(schema)
    with pytest.warns(UserWarning, match="before"), pytest.raises(UserError, match="no sample was evaluated"):
        identity.compute()
    for _ in range(2):
        identity.update(one, one, torch.tensor([5]))
    with pytest.raises(UserError, match="sample 5 was counted twice"):
        identity.compute()
    identity.reset()
    identity.update(one, none, torch.tensor([5]))
    with pytest.raises(UserError, match="not finite"):
        identity.compute()
    accuracy.update(none, none, torch.tensor([0]))
    with pytest.raises(UserError, match="nothing was asked"):
        accuracy.compute()
    with pytest.raises(UserError, match="prediction of Smiling is NaN"):
        accuracy.update(none, one, torch.tensor([1]))
    drift.update(one, one, one, torch.tensor([0]))
    with pytest.raises(UserError, match="every attribute"):
        drift.compute()
    with pytest.raises(UserError, match="not finite"):
        drift.update(none, one, none, torch.tensor([1]))

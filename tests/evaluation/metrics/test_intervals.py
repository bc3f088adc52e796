from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import And, Is, named
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.metrics import AttributeAccuracy, IdentityCosine, UntouchedDrift
from lcg_lightning.evaluation.metrics.accuracy import attribute_scores
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting
from lcg_lightning.evaluation.metrics.intervals import jackknife, mean_estimates


def test_bootstrap_agrees_with_the_normal_interval():
    x = np.random.default_rng(1).exponential(size=(4000, 2))
    x[::4, 1] = np.nan
    for column, estimate in zip(x.T, mean_estimates(x), strict=True):
        counted = column[~np.isnan(column)]
        half = 1.96 * counted.std() / len(counted) ** 0.5
        assert estimate.value == pytest.approx(counted.mean(), rel=1e-12)
        assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.08)


def test_bootstrap_does_not_depend_on_how_resamples_are_blocked(monkeypatch):
    x = np.random.default_rng(2).normal(size=(50, 3))
    whole = mean_estimates(x)
    monkeypatch.setattr("lcg_lightning.evaluation.bootstrap._BLOCK", 50 * 7)
    np.testing.assert_allclose(mean_estimates(x), whole, rtol=1e-12)


def test_jackknife_of_a_mean_is_its_classical_standard_error():
    x = np.random.default_rng(3).normal(size=10)
    estimate = jackknife(x.mean(), [np.delete(x, i).mean() for i in range(10)])
    assert (estimate.high - estimate.low) / 2 == pytest.approx(2.262157 * x.std(ddof=1) / 10**0.5, rel=1e-6)


NOTHING = And(())


def judged(index=0, asked=NOTHING, met_before=None, **pictures):
    schema, index = AttributeSchema((Attribute("Smiling"),)), torch.tensor([index])
    return SimpleNamespace(
        index=index, asked=asked, wanted=[asked], named=named(asked, schema, 1), met_before=met_before, **pictures
    )


def test_what_cannot_be_measured_is_refused():
    one, none = torch.ones(1, 1), torch.full((1, 1), torch.nan)
    setting = Setting(AttributeSchema((Attribute("Smiling"),)), networks={"judge": "any", "identity": "any"})
    identity, accuracy = IdentityCosine(), AttributeAccuracy()
    with pytest.warns(UserWarning, match="before"), pytest.raises(UserError, match="no sample was evaluated"):
        identity.compute()
    who = SimpleNamespace(embeddings=one)
    for _ in range(2):
        identity.update(judged(5, source=who, steps=[who]))
    with pytest.raises(UserError, match="sample 5 was counted twice"):
        identity.compute()
    accuracy.prepare(setting)
    with pytest.raises(UserError, match="prediction of Smiling is NaN"):
        attribute_scores(none, Is("Smiling"), setting.schema)


def test_what_never_counts_has_no_figure():
    """Nothing was asked, so there is no accuracy; everything was, so there is no drift: the run goes on."""
    setting = Setting(AttributeSchema((Attribute("Smiling"),)), edits=True, networks={"judge": "any"})
    seen = SimpleNamespace(outputs=torch.ones(1, 1))
    for metric, asked in ((AttributeAccuracy(), NOTHING), (UntouchedDrift(), Is("Smiling"))):
        metric.prepare(setting)
        metric.update(judged(asked=asked, result=seen, steps=[seen], source=seen))
        assert metric.compute() == {}


def test_a_row_for_each_sample_is_asked_of_a_metric():
    class Wrong(PerSampleMetric):
        columns = (Column("wrong", "Wrong"),)

        def measure(self, samples):
            return samples.values

    with pytest.raises(UserError, match=r"Wrong: measure gives shape \(2,\), not \(1, 1\)"):
        Wrong().update(judged(values=torch.ones(2)))
    metric = Wrong()
    metric.update(judged(values=torch.tensor([[torch.inf]])))
    with pytest.raises(UserError, match="Wrong: a sample's value is infinite"):
        metric.compute()

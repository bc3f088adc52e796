"""Metrics of two sets against torchmetrics, cases made by hand, and what theory says of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.kid import poly_mmd

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.base import Setting
from lcg_lightning.evaluation.metrics.fid import LatentFrechet
from lcg_lightning.evaluation.metrics.sets import KID, PrecisionRecall, ReferenceTwoSampleTest
from lcg_lightning.evaluation.metrics.two_samples import accuracy


def draw(n, d, shift=0.0, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def compared(kind, x, y):
    """What a metric finds of two sets, which are updated in batches out of order."""
    metric = kind()
    space = SimpleNamespace(dim=x.shape[1], generator=SimpleNamespace(truth=None))
    networks = {"features": "any @0"}
    metric.prepare(Setting(AttributeSchema(()), networks=networks, num_features=x.shape[1], space=space))
    for rows in torch.arange(len(x)).flip(0).split(7):
        result = SimpleNamespace(features=x[rows], z=x[rows])
        metric.update(SimpleNamespace(index=rows, result=result))
    for rows in torch.arange(len(y)).split(5):
        metric.update_reference(SimpleNamespace(features=y[rows], z=y[rows]), rows)
    return metric.compute()


def test_kid_is_that_of_torchmetrics():
    x, y = draw(40, 6), draw(40, 6, 0.4, seed=1)
    assert compared(KID, x, y)["kid"].value == pytest.approx(poly_mmd(x, y).item(), rel=1e-10)


def test_kid_has_no_bias_and_its_interval_covers():
    """Over 40 pairs of sets of one distribution, of unequal sizes."""
    found = [compared(KID, draw(30, 4, seed=2 * i), draw(50, 4, seed=2 * i + 1))["kid"] for i in range(40)]
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert np.mean([f.low <= 0 <= f.high for f in found]) > 0.8


def test_precision_and_recall_of_sets_made_by_hand():
    """On a line, where the third neighbours of 0, 1, 2, 3, 4 are 3, 2, 2, 2, 3 away."""
    y = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    x = torch.tensor([[-2.5], [6.5], [7.5], [100.0]])
    found = compared(PrecisionRecall, x, y)
    assert found["precision"].value == 0.5  # -2.5 is in the ball of 0, and 6.5 in that of 4
    assert found["recall"].value == 1.0  # the ball of 100 reaches as far as -2.5
    assert compared(PrecisionRecall, x, y + 1000)["precision"].value == 0.0
    assert compared(PrecisionRecall, x, y - 1000)["recall"].value == 0.0


def test_latent_frechet_is_the_closed_form():
    x, y = draw(50, 3), draw(30, 3, 0.5, seed=1)
    a, b = x.numpy(), y.numpy()
    cross = np.trace(scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * cross
    assert compared(LatentFrechet, x, y)["latent_frechet"].value == pytest.approx(expected, rel=1e-9)


def test_two_samples_are_told_apart_only_if_they_differ():
    x, y = draw(400, 8), draw(400, 8, seed=1)
    same, apart = accuracy(x.numpy(), y.numpy()), accuracy(x.numpy(), y.numpy() + 2.0)
    assert same.low < 0.5 < same.high
    assert same.high - same.low < 0.1
    assert apart.value > 0.97
    found = compared(ReferenceTwoSampleTest, x, draw(300, 8, 0.7, seed=1))["c2st_data"]
    bayes = torch.special.ndtr(torch.tensor(0.7 * 8**0.5 / 2)).item()  # two Gaussians at that distance
    assert bayes - 0.08 < found.value < bayes + 0.03


def test_too_few_samples_are_one_line():
    with pytest.raises(UserError, match="KID: 1 generated, 4 reference samples; give it two or more of each"):
        compared(KID, draw(1, 2), draw(4, 2))

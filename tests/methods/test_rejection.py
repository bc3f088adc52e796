"""Rejection sampling with an exact prior and classifier: samples follow the posterior, whatever the batch."""

import math
from pathlib import Path

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import conjunction, parse
from lcg_lightning.diffusion.grids import logsnr_grid
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.methods import rejection
from lcg_lightning.methods.rejection import Rejection
from tests.methods.test_lcg import SCHEDULE, Normal

SCHEMA = AttributeSchema((Attribute("Hat"), Attribute("Bald"), Attribute("Age", "continuous", low=0, high=100)))
DEVIATION = 0.05
"""p(Hat | z) = sigmoid(3 z_0), p(Bald | z) = sigmoid(z_1), Age / 100 ~ N(.5 + .2 z_2, DEVIATION^2)."""


def classifier(z, t):
    assert not t.any()
    log_variance = torch.full_like(z[:, 0], 2 * math.log(DEVIATION))
    return torch.stack([3 * z[:, 0], z[:, 1], 0.5 + 0.2 * z[:, 2], log_variance], 1)


def method(**options):
    found = Rejection(Path("p"), Path("c"), steps=20, **options)
    found.start.prior, found.start.schema, found.start.grid = Normal(), SCHEMA, logsnr_grid(SCHEDULE, 20)
    found.classifier, found.schema, found.samples, found.evaluations = classifier, SCHEMA, 0, 0
    return found


def noise(index):
    return SampleNoise(3, index, 3)


def moments(likelihood):
    x = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    weight = torch.exp(-x.square() / 2) * likelihood(x)
    mean = (x * weight).sum() / weight.sum()
    return mean.item(), ((x - mean).square() * weight).sum().div(weight.sum()).sqrt().item()


def test_accepted_draws_follow_the_posterior():
    """Against quadrature: a logistic attribute, a number within a tenth of its range, and an OR of two."""
    n = 4000
    z = method().generate(parse("~Hat & Age=70", SCHEMA), noise(torch.arange(n)))
    window = torch.distributions.Normal(0.0, DEVIATION)
    expected = (
        moments(lambda x: torch.sigmoid(-3 * x)),
        (0.0, 1.0),
        moments(lambda x: window.cdf(0.5 + 0.2 * x - 0.6) - window.cdf(0.5 + 0.2 * x - 0.8)),
    )
    for column, (mean, deviation) in zip(z.T.double(), expected, strict=True):
        assert abs(column.mean() - mean) < 4 * deviation / math.sqrt(n)
        assert abs(column.std() / deviation - 1) < 0.06
    either = method().generate(parse("Hat | Bald", SCHEMA), noise(torch.arange(n)))
    grid = torch.cartesian_prod(*[torch.linspace(-6, 6, 601, dtype=torch.float64)] * 2)
    weight = torch.exp(-grid.square().sum(1) / 2) * (1 - torch.sigmoid(-3 * grid[:, 0]) * torch.sigmoid(-grid[:, 1]))
    torch.testing.assert_close(
        either[:, :2].double().mean(0), (grid * weight[:, None]).sum(0) / weight.sum(), rtol=0, atol=0.06
    )


def test_results_do_not_depend_on_batches(monkeypatch):
    g = torch.Generator().manual_seed(0)
    rows = torch.stack([torch.randint(2, (30,), generator=g), torch.full((30,), math.nan), torch.full((30,), 60)], 1)
    index = torch.arange(30)
    whole = method()
    z = whole.generate(conjunction(rows, SCHEMA), noise(index))
    monkeypatch.setattr(rejection, "AT_ONCE", 7)
    parts = method()
    again = [parts.generate(conjunction(rows[i], SCHEMA), noise(index[i])) for i in index.split(11)]
    torch.testing.assert_close(torch.cat(again), z)
    assert parts.nfe == whole.nfe
    assert whole.nfe > 20 / 0.4  # at most .383 of the prior is within a tenth of 60


def test_without_an_accepted_draw_the_most_probable_is_used():
    condition = parse("Hat & ~Bald & Age=100", SCHEMA)
    few, one = method(max_draws=12), method(max_draws=1)
    with pytest.warns(UserWarning, match=r"\d+ of 40 samples were accepted in none of 12 draws"):
        z = few.generate(condition, noise(torch.arange(40)))
    with pytest.warns(UserWarning, match="1 draws"):
        first = one.generate(condition, noise(torch.arange(40)))
    assert one.nfe == 20
    assert 20 * 10 < few.nfe <= 20 * 12
    torch.testing.assert_close(first, one.start.draw(noise(torch.arange(40))))
    assert (z[:, 2] > first[:, 2] - 1e-6).double().mean() > 0.8


def test_what_it_cannot_do_is_one_line():
    with pytest.raises(UserError, match="max_draws is 0; give 1 or more"):
        Rejection(Path("p"), Path("c"), max_draws=0)
    with pytest.raises(UserError, match="cannot edit"):
        method().edit(torch.zeros(1, 3), [])

"""What the conditional prior is given: features of labels, of which training drops some."""

import math

import pytest
import torch

from lcg_lightning.errors import UserError
from lcg_lightning.models.conditional import ConditionalPrior, features
from tests.toy_latents import SCHEMA, D


def module(**options):
    return ConditionalPrior(D, SCHEMA.to_json(), hidden=8, layers=2, **options)


def test_features_of_known_and_unknown_labels():
    labels = torch.tensor([[1.0, 12.5, 2.0], [math.nan, 25.0, math.nan], [0.0, math.nan, 0.0]])
    expected = [[1.0, 1, -0.5, 1, 0, 0, 1], [0, 0, 1, 1, 0, 0, 0], [-1, 1, 0, 0, 1, 0, 0]]
    assert features(labels, SCHEMA).tolist() == expected


def test_labels_are_dropped_at_the_stated_rates_and_repeatably():
    prior, labels = module(drop=0.3, drop_all=0.2), torch.ones(40000, 3)
    lost = prior.dropped(labels, 7).isnan()
    assert lost.all(1).float().mean() == pytest.approx(0.2 + 0.8 * 0.3**3, abs=0.01)
    assert lost.float().mean(0).tolist() == pytest.approx([0.2 + 0.8 * 0.3] * 3, abs=0.01)
    assert torch.equal(lost, prior.dropped(labels, 7).isnan())
    assert not torch.equal(lost, prior.dropped(labels, 8).isnan())


@pytest.mark.parametrize("options", [{"drop": 1.0}, {"drop_all": -0.1}, {"drop": math.nan}, {"lr": 0.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=rf"^{next(iter(options))} is .* it must be [^\n]+$"):
        module(**options)

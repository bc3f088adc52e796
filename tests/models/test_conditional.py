"""What the conditional prior is given: features of labels, of which training drops some."""

import math

import pytest
import torch

from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.models.conditional import ConditionalPrior, features
from lcg_lightning.models.load import load_conditional_prior
from tests import toy_latents
from tests.toy_latents import SCHEMA, D


def module(**options):
    return ConditionalPrior(D, SCHEMA.to_json(), hidden=8, layers=2, **options)


def test_features_of_known_and_unknown_labels():
    labels = torch.tensor([[1.0, 12.5, 2.0], [math.nan, 25.0, math.nan], [0.0, math.nan, 0.0]])
    expected = [[1.0, 1, -0.5, 1, 0, 0, 1], [0, 0, 1, 1, 0, 0, 0], [-1, 1, 0, 0, 1, 0, 0]]
    assert features(labels, SCHEMA).tolist() == expected


def test_every_number_of_known_labels_is_equally_often_seen_and_repeatably():
    prior, labels = module(drop_all=0.2), torch.ones(60000, 3)
    lost = prior.dropped(labels, 7).isnan()
    share = lost.sum(1).bincount() / len(lost)
    assert share.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2 + 0.2], abs=0.01)  # 0.8 / 4 each, and 0.2 lose all
    assert lost.float().mean(0).tolist() == pytest.approx([0.2 + 0.8 / 2] * 3, abs=0.01)
    assert torch.equal(lost, prior.dropped(labels, 7).isnan())
    assert not torch.equal(lost, prior.dropped(labels, 8).isnan())


def test_a_checkpoint_of_the_time_when_every_label_had_one_drop_rate_still_loads(tmp_path):
    store, before = LatentStore.open(toy_latents.write(tmp_path / "store", 50)), module()
    arguments = {**before.hparams, "drop": 0.5}
    torch.save({"state_dict": before.state_dict(), "hyper_parameters": arguments}, tmp_path / "old.ckpt")
    after = load_conditional_prior(tmp_path / "old.ckpt", store)
    given = torch.randn(5, D), torch.arange(5), before.features(torch.tensor([[1.0, 12.5, 2.0]]).expand(5, 3))
    torch.testing.assert_close(after(*given), before(*given), rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"drop_all": 1.0}, {"drop_all": -0.1}, {"drop_all": math.nan}, {"lr": 0.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=rf"^{next(iter(options))} is .* it must be [^\n]+$"):
        module(**options)

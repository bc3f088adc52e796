import pytest
import torch

from lcg_lightning.errors import UserError
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.prior import LatentPrior
from tests.toy_latents import SCHEMA, D


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("latent_dim", v) for v in (0, None)),
        *((name, 0) for name in ("hidden", "time_hidden", "num_steps", "decay_steps", "buckets", "lr")),
        *((name, -1) for name in ("lr", "weight_decay", "warmup_steps", "decay_steps", "ema_decay", "hidden")),
        *((name, float("nan")) for name in ("lr", "weight_decay", "ema_decay")),
        ("layers", 1),
        ("ema_decay", 1),
        ("ema_decay", 2),
        ("lr", float("inf")),
    ],
)
def test_impossible_arguments_are_refused_by_name(name, value):
    kind, given = (LatentPrior, {}) if name != "buckets" else (LatentClassifier, {"attributes": SCHEMA.to_json()})
    with pytest.raises(UserError, match=f"^{name} is {value}; it must be"):
        kind(**{"latent_dim": D, **given, name: value})


def test_the_smallest_arguments_work():
    small = {"hidden": 1, "layers": 2, "num_steps": 1, "warmup_steps": 0, "decay_steps": 1, "ema_decay": 0.0}
    prior = LatentPrior(1, time_hidden=1, weight_decay=0.0, **small)
    classifier = LatentClassifier(1, SCHEMA.to_json(), buckets=1, **small)
    for module in (prior, classifier):
        assert module(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)).isfinite().all()

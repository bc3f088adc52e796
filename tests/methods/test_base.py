import torch

from lcg_lightning.methods.base import Method
from lcg_lightning.models.prior import LatentPrior


def fingerprints(**options):
    method = Method()
    method.prior, method.other = LatentPrior(4, hidden=8, layers=2, time_hidden=8, **options), torch.nn.Linear(2, 2)
    return method.fingerprints


def test_networks_of_several_seeds_have_the_same_arguments_and_wider_ones_have_not():
    first, second, slower = fingerprints(seed=0), fingerprints(seed=1), fingerprints(lr=1e-2)
    assert first.keys() == {"prior", "prior_arguments", "other"}
    assert first["prior"] != second["prior"]
    assert first["prior_arguments"] == second["prior_arguments"] != slower["prior_arguments"]

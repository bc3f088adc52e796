"""What a process keeps of shared pictures is served again only for the same pictures, read in the same precision."""

import pytest
import torch
from torch import nn

from lcg_lightning.data.store import LatentStore
from lcg_lightning.evaluation.decoding import Decoding
from lcg_lightning.evaluation.judged import Judges
from lcg_lightning.evaluation.reference import Reference
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.kept import loaded_once
from tests.evaluation import exact


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """Embeddings of sources and reference, read by one network from pictures of a size, in a precision."""
    store = LatentStore.open(exact.write(tmp_path_factory.mktemp("exact") / "store", {"train": 3, "val": 3, "test": 3}))
    torch.manual_seed(0)
    network = IdentityNetwork(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 8)), 8, "pooled")

    def embedded(size, mixed):
        space = store.space(ExactWorld(exact.WORLD["curvature"], size))
        judges = Judges(None, network, None, store, space)
        z = space.standardize(store.split("test").latents)
        sources = Decoding(space, judges, 0, 1.0, None, False).of(z, torch.arange(3))(z, shared=True)
        ((reference, _),) = Reference(store, space, "val", None, False, 0).batches(judges, 3, 1, 0, z.device)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return sources.embeddings, reference.embeddings

    return embedded


@pytest.mark.parametrize("other", [(32, False), (16, True)], ids=["another size", "another precision"])
def test_pictures_that_another_evaluation_decodes_or_reads_otherwise_are_read_again(embeddings, other):
    with loaded_once():
        kept, same, found = embeddings(16, False), embeddings(16, False), embeddings(*other)
    for a, b, c, expected in zip(kept, same, found, embeddings(*other), strict=True):
        assert a is b
        assert torch.equal(c, expected)
        assert not torch.equal(c, a)

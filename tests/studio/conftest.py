"""The studio's resources in the small world."""

import pytest

from lcg_lightning.methods.lcg import LatentClassifierGuidance
from lcg_lightning.studio.resources import load_resources


@pytest.fixture(scope="session")
def resources(world):
    return load_resources(world.store, LatentClassifierGuidance(world.prior, world.classifier), records=world.root)


@pytest.fixture(scope="session")
def page(resources):
    from lcg_lightning.studio.app import build

    return build(resources)

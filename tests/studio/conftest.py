"""The studio's workshop in the small world."""

import pytest

from lcg_lightning.methods.lcg import LatentClassifierGuidance
from lcg_lightning.studio.workshop import open_workshop


@pytest.fixture(scope="session")
def workshop(world):
    return open_workshop(world.store, LatentClassifierGuidance(world.prior, world.classifier), records=world.root)


@pytest.fixture(scope="session")
def page(workshop):
    from lcg_lightning.studio.app import build

    return build(workshop)

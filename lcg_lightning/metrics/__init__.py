"""What is measured of generated and edited images; every figure comes with a 95 % interval."""

from lcg_lightning.metrics.accuracy import AttributeAccuracy
from lcg_lightning.metrics.disentanglement import UntouchedDrift
from lcg_lightning.metrics.features import FeatureExtractor, load_inception
from lcg_lightning.metrics.fid import FrechetDistance
from lcg_lightning.metrics.identity import IdentityCosine
from lcg_lightning.metrics.intervals import Estimate

__all__ = [
    "AttributeAccuracy",
    "Estimate",
    "FeatureExtractor",
    "FrechetDistance",
    "IdentityCosine",
    "UntouchedDrift",
    "load_inception",
]

"""What is measured of generated and edited images; every figure comes with a 95 % interval."""

from lcg_lightning.evaluation.metrics.accuracy import AttributeAccuracy
from lcg_lightning.evaluation.metrics.disentanglement import UntouchedDrift
from lcg_lightning.evaluation.metrics.features import FeatureExtractor, load_inception
from lcg_lightning.evaluation.metrics.fid import FrechetDistance
from lcg_lightning.evaluation.metrics.identity import IdentityCosine
from lcg_lightning.evaluation.metrics.intervals import Estimate

__all__ = [
    "AttributeAccuracy",
    "Estimate",
    "FeatureExtractor",
    "FrechetDistance",
    "IdentityCosine",
    "UntouchedDrift",
    "load_inception",
]

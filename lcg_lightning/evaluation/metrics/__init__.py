"""What is measured of generated and edited images; every figure comes with a 95 % interval."""

from lcg_lightning.evaluation.metrics.accuracy import AttributeAccuracy
from lcg_lightning.evaluation.metrics.base import ImageMetric
from lcg_lightning.evaluation.metrics.disentanglement import UntouchedDrift
from lcg_lightning.evaluation.metrics.fid import FrechetDistance
from lcg_lightning.evaluation.metrics.identity import IdentityCosine

METRICS: tuple[type[ImageMetric], ...] = (AttributeAccuracy, FrechetDistance, IdentityCosine, UntouchedDrift)
"""What every evaluation measures where it applies, in the order of the leaderboard's columns."""

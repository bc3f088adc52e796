"""Metrics of generated and edited images; every figure has a 95 % interval."""

from lcg_lightning.evaluation.metrics.accuracy import AttributeAccuracy, MetBefore
from lcg_lightning.evaluation.metrics.base import ImageMetric
from lcg_lightning.evaluation.metrics.conditional import TrueConditional
from lcg_lightning.evaluation.metrics.disentanglement import EditStrength, UntouchedDrift
from lcg_lightning.evaluation.metrics.fid import FrechetDistance, LatentFrechet
from lcg_lightning.evaluation.metrics.identity import IdentityCosine, IdentityDistance
from lcg_lightning.evaluation.metrics.undo import UndoDistance

METRICS: tuple[type[ImageMetric], ...] = (
    AttributeAccuracy,
    MetBefore,
    FrechetDistance,
    LatentFrechet,
    TrueConditional,
    IdentityCosine,
    IdentityDistance,
    UntouchedDrift,
    EditStrength,
    UndoDistance,
)
"""The metrics that every evaluation uses if they apply, in the order of the leaderboard's columns."""

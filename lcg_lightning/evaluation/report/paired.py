"""Comparisons of methods in pairs, on the same samples, and what several seeds of one method say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.report.runs import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TINY = 1e-6
"""Differences up to this size are rounding: processes and batches change figures in float32 by less."""
_LEAST = 6
"""Samples that must differ for a difference to count: 5, all in one direction, give p = .06 in an exact sign test."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """One column's figures of R runs that make a row, with B bootstrap resamples of the samples."""

    seeds: Sequence[int]
    """Noise seed of each run."""
    values: Sequence[float]
    """Figure of each run."""
    samples: "NDArray[np.float64]"
    """(R, n) figures of single samples."""
    resampled: "NDArray[np.float64]"
    """(R, B) means over resampled samples; the draws are the same for all runs of equally many samples."""


def draw(runs: Sequence[Run]) -> dict[str, Drawn]:
    """Bootstrap resamples of every column that is a per-sample figure of all runs, by the column's name."""
    names = [c.name for c in runs[0].record.columns if all(_counted(run, c.name) for run in runs)]
    if not names:
        return {}
    import numpy as np

    from lcg_lightning.evaluation.bootstrap import bootstrap_means

    samples = np.stack([np.stack([run.samples[name] for name in names], 1) for run in runs])  # (R, n, C)
    means = np.stack([bootstrap_means(each) for each in samples])  # (R, B, C)
    seeds = [run.record.seed for run in runs]
    return {
        name: Drawn(seeds, [run.record.metrics[name].value for run in runs], samples[..., i], means[..., i])
        for i, name in enumerate(names)
    }


def _counted(run: Run, name: str) -> bool:
    return name in run.samples and name in run.record.metrics


def difference(a: Drawn, b: Drawn) -> Estimate | None:
    """Figure of a minus figure of b, with a 95 % interval over the samples that both were given.

    Runs of a noise seed that the other lacks are left out; without a common seed there is no difference. Where a row
    has several runs, the interval covers its seeds, see :func:`over_seeds`. The bootstrap's interval is too short where
    few samples differ, as near an accuracy of 1: with fewer than :data:`_LEAST` of them it is made to hold 0.
    """
    import numpy as np

    shared = set(a.seeds) & set(b.seeds)
    if not shared:
        return None
    value, gaps, resampled, margin = 0.0, np.zeros(()), np.zeros(()), 0.0
    for sign, each in ((1, a), (-1, b)):
        used = [i for i, seed in enumerate(each.seeds) if seed in shared]
        value += sign * math.fsum(each.values[i] for i in used) / len(used)
        gaps = gaps + sign * each.samples[used].mean(0)
        resampled = resampled + sign * each.resampled[used].mean(0)
        margin = math.hypot(margin, _margin(each.values, len(used)))
    low, high = map(float, np.nanpercentile(resampled, [2.5, 97.5]))
    if (np.abs(gaps) > _TINY).sum() < _LEAST:
        low, high = min(low, 0.0), max(high, 0.0)
    return _widened(Estimate(value, low, high), margin)


def better(estimate: Estimate, column: Column) -> bool:
    """Whether a difference is an advantage: its interval lies beyond 0 on the column's better side."""
    return estimate.low > _TINY if column.higher_is_better else estimate.high < -_TINY


def over_seeds(runs: Sequence[Run], column: Column) -> Estimate:
    """One figure of runs that differ in seeds: their mean, with a 95 % interval over samples and seeds.

    The half-widths over samples (the mean of the runs' own) and over seeds (t s / sqrt(R), with the standard deviation
    s of the R runs' figures and the .975 quantile t of Student's distribution with R - 1 degrees of freedom) add in
    quadrature. One run keeps its own interval, which says nothing of other seeds.
    """
    estimates = [run.record.metrics[column.name] for run in runs]
    if len(runs) == 1:
        return estimates[0]
    mean = Estimate(*(math.fsum(each) / len(runs) for each in zip(*estimates, strict=True)))
    wide = _widened(mean, _margin([each.value for each in estimates], len(runs)))
    return wide._replace(low=max(wide.low, column.low), high=min(wide.high, column.high))


def spread(runs: Sequence[Run], name: str) -> float | None:
    """Standard deviation of a figure over runs that differ in seeds; None for one run."""
    values = [run.record.metrics[name].value for run in runs]
    return None if len(values) == 1 else _deviation(values)


def _deviation(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1))


def _margin(values: Sequence[float], used: int) -> float:
    """Half-width over seeds of a mean over ``used`` of several runs; 0 for one run."""
    if len(values) == 1:
        return 0.0
    from scipy import stats

    return float(stats.t.ppf(0.975, len(values) - 1)) * _deviation(values) / math.sqrt(used)


def _widened(estimate: Estimate, margin: float) -> Estimate:
    value, low, high = estimate
    return Estimate(value, value - math.hypot(value - low, margin), value + math.hypot(high - value, margin))

"""95 % intervals: the bootstrap over samples, and the jackknife over groups of them."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lcg_lightning.evaluation.bootstrap import bootstrap_means
from lcg_lightning.evaluation.estimates import Estimate


def mean_estimates(values: NDArray[np.float64], shares: bool = False) -> list[Estimate]:
    """Mean over samples of each column, with percentile bootstrap intervals (Efron, 1979).

    All columns are resampled together by a separately seeded generator, so the same rows give the same bounds.

    Args:
        values: (N, C) float64, N >= 1; NaN entries are ignored, and every column needs one other entry.
        shares: whether a column of zeros and ones is a share of hits. Its interval is then Wilson's (1927), since the
            bootstrap's has no width where all samples hit.

    Returns:
        One estimate per column.

    >>> mean_estimates(np.array([[1.0], [1.0], [np.nan]]))
    [Estimate(value=1.0, low=1.0, high=1.0)]
    >>> [(value, low, high)] = mean_estimates(np.ones((300, 1)), shares=True)
    >>> round(low, 4), high
    (0.9874, 1.0)
    """
    low, high = np.nanpercentile(bootstrap_means(values), [2.5, 97.5], axis=0)
    counted = (~np.isnan(values)).sum(0)
    value = np.nansum(values, 0) / counted
    for i in np.flatnonzero(np.isin(values, [0, 1]).sum(0) == counted) if shares else ():
        hits = stats.binomtest(round(value[i] * counted[i]), counted[i])
        low[i], high[i] = hits.proportion_ci(method="wilson")
    return [Estimate(*map(float, column)) for column in zip(value, low, high, strict=True)]


def jackknife(value: float, left_out: list[float]) -> Estimate:
    """Delete-one-group jackknife interval of a statistic, from its values without each of G equal groups (Tukey, 1958).

    The variance is (G - 1) / G times the sum of squares of these values around their mean. The bounds use Student's t
    with G - 1 degrees of freedom. The statistic's bias at this sample size is not corrected.

    >>> jackknife(2.0, [2.0, 2.0, 2.0])
    Estimate(value=2.0, low=2.0, high=2.0)
    """
    groups = len(left_out)
    error = np.sqrt((groups - 1) * np.var(left_out))
    half = float(stats.t.ppf(0.975, groups - 1) * error)
    return Estimate(value, value - half, value + half)

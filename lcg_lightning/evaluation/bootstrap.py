"""The bootstrap over samples: means of resampled rows."""

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**22  # resampled entries held at once


def bootstrap_means(values: NDArray[np.float64], resamples: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Means of each column over resamples of the rows, drawn with replacement (Efron, 1979).

    The draws depend on N, ``resamples`` and ``seed`` alone. So the means of two methods on the same samples belong
    together, and their difference is the paired bootstrap of the difference.

    Args:
        values: (N, C) float64; NaN entries are ignored.
        resamples: number B of resamples.
        seed: seed of the draws.

    Returns:
        (B, C) float64; NaN where a resample has only NaN.

    >>> bootstrap_means(np.array([[1.0], [1.0], [np.nan]]), resamples=2)
    array([[1.],
           [1.]])
    """
    counted = ~np.isnan(values)
    filled = np.where(counted, values, 0.0)
    n = len(values)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // n)
    means = []
    for start in range(0, resamples, block):
        b = min(block, resamples - start)
        draws = rng.integers(n, size=(b, n)) + n * np.arange(b)[:, None]
        times = np.bincount(draws.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a resample may contain only NaN
            means.append((times @ filled) / (times @ counted))  # (b, C)
    return np.concatenate(means)

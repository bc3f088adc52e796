"""The Fréchet distance between two Gaussians, and the sums that their moments come from (Heusel et al., 1706.08500)."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from torch import Tensor

Matrix = NDArray[np.float64]

_LOST = 1e-8
"""Share of the distance that rounding may cost before singular values are computed without squaring them."""
_EPS = float(np.finfo(np.float64).eps)


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """|mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64 and squared feature units.

    With C1 = L L^T and C2 = M M^T from Cholesky factors, the trace of the root is the sum of the singular values of
    L^T M. The factors are pivoted and have as many columns as the covariances have ranks, which may be less than d, as
    from fewer samples than dimensions. Singular values come from their squares where this costs the distance no more
    than 1e-8 of its value.

    Args:
        mu1: Mean (d,).
        cov1: Covariance (d, d), of which the lower triangle is read.
        mu2: Mean (d,).
        cov2: Covariance (d, d), likewise.

    >>> eye = torch.eye(2)
    >>> round(frechet_distance(torch.zeros(2), eye, torch.ones(2), 4 * eye), 12)
    4.0
    """
    mu1, cov1, mu2, cov2 = (x.detach().to("cpu", torch.float64) for x in (mu1, cov1, mu2, cov2))
    apart = float((mu1 - mu2).square().sum() + cov1.trace() + cov2.trace())
    product = _root(cov1.numpy()) @ _root(cov2.numpy()).T
    singular, lost = _singular_values(product)
    distance = apart - 2 * singular
    if 2 * lost > _LOST * distance:
        distance = apart - 2 * float(torch.linalg.svdvals(torch.from_numpy(product)).sum())
    return max(distance, 0.0)


def _root(cov: Matrix) -> Matrix:
    """R (rank, d) with R^T R = cov (d, d), without pivots that may be zero up to rounding; reads the lower triangle."""
    tolerance = len(cov) * _EPS * np.linalg.norm(np.tril(cov))
    factor, pivots, rank, _ = lapack.dpstrf(cov.T, tol=tolerance)
    root: Matrix = np.empty((rank, len(cov)), order="F")
    root[:, pivots - 1] = np.triu(factor[:rank])
    return root


def _singular_values(matrix: Matrix) -> tuple[float, float]:
    """Sum of the singular values, from the eigenvalues of the Gram matrix, and a bound on what squaring them cost.

    This takes a fifth of the time of an SVD. An eigenvalue is off by rounding of the largest, e, and its root r by at
    most e / 2r or e^(1/2).
    """
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    squares = torch.linalg.eigvalsh(torch.from_numpy(wide @ wide.T)).clamp(min=0)
    values, error = squares.sqrt(), _EPS * squares[-1:]
    return float(values.sum()), float(torch.minimum(error / (2 * values), error.sqrt()).sum())


def add_products(outer: Tensor, rows: Tensor) -> None:
    """Adds rows^T rows to the lower triangle of ``outer``, in place; what is above the diagonal means nothing.

    On a CPU this takes half the operations of a product.

    Args:
        outer: Sum (d, d), float64 and contiguous.
        rows: Features (n, d), float64.
    """
    if outer.is_cpu:
        blas.dsyrk(1.0, rows.numpy().T, beta=1.0, c=outer.numpy().T, overwrite_c=True)
    else:
        outer.addmm_(rows.T, rows)


def mean_and_covariance(count: Tensor, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and lower triangle of the unbiased covariance (d, d), from count, sum (d,) and products (d, d)."""
    mean = total / count
    return mean, torch.addr(outer, mean, mean, alpha=-float(count)).div_(count - 1)

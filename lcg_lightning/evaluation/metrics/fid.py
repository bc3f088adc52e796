"""The Fréchet distance between two sets of features (Heusel et al., arXiv 1706.08500, equation 6)."""

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.intervals import Estimate, jackknife

_GROUPS = 10


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """|mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64 and squared feature units.

    With C1 = L L^T and C2 = M M^T from their eigenvectors, the trace of the root is the sum of the singular
    values of L^T M. That never squares them, so it is exact to rounding for covariances of any rank, such as
    those of fewer samples than dimensions.

    Args:
        mu1: Mean (d,).
        cov1: Covariance (d, d).
        mu2: Mean (d,).
        cov2: Covariance (d, d).

    >>> eye = torch.eye(2)
    >>> round(frechet_distance(torch.zeros(2), eye, torch.ones(2), 4 * eye), 12)
    4.0
    """
    mu1, cov1, mu2, cov2 = (x.to(torch.float64) for x in (mu1, cov1, mu2, cov2))
    overlap = torch.linalg.svdvals(_root(cov1).T @ _root(cov2)).sum()
    distance = (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * overlap
    return max(float(distance), 0.0)


def _root(cov: Tensor) -> Tensor:
    """R (d, rank) with R R^T = cov (d, d), leaving out eigenvalues that rounding alone may make of a zero."""
    values, vectors = torch.linalg.eigh(cov)
    keep = values > len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    root: Tensor = vectors[:, keep] * values[keep].sqrt()
    return root


class FrechetDistance(Metric):
    """Fréchet distance between generated and real features, with a 95 % interval.

    Keeps float64 counts, sums and outer products of ten groups (by global sample index modulo 10), never the
    features: the distance is exact, and its interval is the delete-one-group jackknife, in which a generated
    sample leaves together with the real one of the same index. The interval shows sampling noise only; the
    distance's own upward bias at finite sample size stays in the value, so compare equal sample sizes.
    The state takes 160 d^2 bytes, 0.7 GB at d = 2048.

    Args:
        num_features: Width d of the features.

    >>> metric = FrechetDistance(2)
    >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    >>> metric.update(x, torch.arange(4), real=True)
    >>> metric.update(x + 3, torch.arange(4), real=False)
    >>> round(metric.compute().value, 9)
    18.0
    """

    full_state_update = False
    higher_is_better = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(dist_sync_fn=_all_reduce)
        d = num_features
        for name, shape in {"count": (), "total": (d,), "outer": (d, d)}.items():
            zeros = torch.zeros(2, _GROUPS, *shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, features: Tensor, indices: Tensor, real: bool) -> None:
        """Adds features (B, d) of the samples with global indices (B,)."""
        x = features.to(torch.float64)
        groups = indices.to(x.device) % _GROUPS
        for group in set(groups.tolist()):
            rows = x[groups == group]
            self.count[int(real), group] += len(rows)
            self.total[int(real), group] += rows.sum(0)
            self.outer[int(real), group] += rows.T @ rows

    def compute(self) -> Estimate:
        """The distance; its bounds are NaN where leaving out a group leaves fewer than two samples.

        Raises:
            UserError: fewer than two samples on either side, or features that are not finite.
        """
        states = tuple(state.cpu() for state in (self.count, self.total, self.outer))
        sums = tuple(state.sum(1) for state in states)
        generated, real = (int(n) for n in sums[0])
        if min(generated, real) < 2:
            raise UserError(
                f"Fréchet distance: {generated} generated, {real} real samples; give it two or more of each"
            )
        if not all(x.isfinite().all() for x in sums):
            raise UserError("Fréchet distance: a feature is not finite; check the generator's images")
        value = _distance(*sums)
        used = [g for g in range(_GROUPS) if states[0][:, g].any()]
        if any((sums[0] - states[0][:, g]).min() < 2 for g in used):
            return Estimate(value, float("nan"), float("nan"))
        without = (tuple(s - x[:, g] for s, x in zip(sums, states, strict=True)) for g in used)
        estimate = jackknife(value, [_distance(*rest) for rest in without])
        return estimate._replace(low=max(estimate.low, 0.0))


def _distance(count: Tensor, total: Tensor, outer: Tensor) -> float:
    """Distance from the two sides' counts (2,), sums (2, d) and outer products (2, d, d)."""
    mean = total / count[:, None]
    scatter = outer - count[:, None, None] * mean[:, :, None] * mean[:, None, :]
    cov = scatter / (count - 1)[:, None, None]
    return frechet_distance(mean[0], cov[0], mean[1], cov[1])


def _all_reduce(state: Tensor, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """Sum over processes, as a list of one: torchmetrics would gather every process's copy first."""
    state = state.clone()
    dist.all_reduce(state, group=group)
    return [state]

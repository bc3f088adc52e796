"""Metrics of two sets of vectors, generated and reference: KID, precision and recall, the two-sample test."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.judged import Judged, Pictures
from lcg_lightning.evaluation.metrics.base import ImageMetric, Setting
from lcg_lightning.evaluation.metrics.intervals import mean_estimates
from lcg_lightning.evaluation.metrics.kernels import group_sums, without_each_group
from lcg_lightning.evaluation.metrics.rows import flat, unflat
from lcg_lightning.evaluation.metrics.two_samples import accuracy

_BLOCK = 2**22  # distances held at once


class SetMetric(ImageMetric):
    """A metric of all generated and all reference vectors at once; by default, of the features of pictures.

    Subclasses implement :meth:`compare`. Every process gathers the vectors, 8 (d + 1) bytes each.
    """

    columns: Sequence[Column]
    uses_reference = True
    rows: list[Tensor]
    others: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("others", [], dist_reduce_fx="cat")

    def applies(self, setting: Setting) -> bool:
        """If a perfect method's images follow the data, and there are features to compare."""
        return setting.matches_data and "features" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the width and the features' name."""
        self.width = setting.num_features
        basis = setting.basis("features") | {"reference": setting.reference}
        name = setting.networks["features"].rsplit(" @", 1)[0]
        self.columns = tuple(replace(c, heading=f"{c.heading} ({name})", basis=basis) for c in self.columns)

    def vectors(self, pictures: Pictures) -> Tensor:
        """What is compared, (B, d)."""
        return pictures.features

    def update(self, samples: Judged) -> None:
        """Adds generated vectors."""
        self.rows.append(flat(samples.index, self.vectors(samples.result)))

    def update_reference(self, pictures: Pictures, index: Tensor) -> None:
        """Adds reference vectors."""
        self.others.append(flat(index, self.vectors(pictures)))

    def compute(self) -> dict[str, Estimate]:
        """Compares the two sets.

        Raises:
            UserError: a set has fewer than two vectors, or a vector was counted twice.
        """
        name = type(self).__name__
        x_index, x = map(torch.from_numpy, unflat(self.rows, self.width, name))
        y_index, y = map(torch.from_numpy, unflat(self.others, self.width, name))
        if min(len(x), len(y)) < 2:
            raise UserError(f"{name}: {len(x)} generated, {len(y)} reference samples; give it two or more of each")
        return self.compare(x, y, x_index, y_index)

    def compare(self, x: Tensor, y: Tensor, x_index: Tensor, y_index: Tensor) -> dict[str, Estimate]:
        """Estimates from generated vectors x (N, d) and reference vectors y (M, d), with their indices (N,), (M,)."""
        raise NotImplementedError


class KID(SetMetric):
    """Kernel inception distance: the unbiased squared MMD of features under ((x . y) / d + 1)^3.

    Bińkowski et al., "Demystifying MMD GANs", arXiv 1801.01401, section 4. It uses all pairs instead of random subsets.
    Unlike FID it has no bias at small n, and so it may be negative. The interval is a jackknife over ten groups.
    """

    columns: Sequence[Column] = (Column("kid", "KID", digits=4, higher_is_better=False),)

    def compare(self, x: Tensor, y: Tensor, x_index: Tensor, y_index: Tensor) -> dict[str, Estimate]:
        """The distance."""

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return (a @ b.T / a.shape[1] + 1) ** 3

        def distance(xx: float, yy: float, xy: float, n: float, m: float) -> float:
            return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m) if min(n, m) > 1 else float("nan")

        sums = [
            group_sums(kernel, x, x, x_index, x_index, apart=True),
            group_sums(kernel, y, y, y_index, y_index, apart=True),
            group_sums(kernel, x, y, x_index, y_index, apart=False),
            *(torch.bincount(index % 10, minlength=10).double() for index in (x_index, y_index)),
        ]
        return {"kid": without_each_group(sums, distance)}


class PrecisionRecall(SetMetric):
    """Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991, equations 1 and 2), with k = 3.

    A set's manifold is the union of balls around its features, each reaching to the third nearest other one.
    ``precision`` is the share of generated features in the reference's manifold, ``recall`` the share of reference
    features in the generated one's. Both depend on the number of samples on either side. The intervals, Wilson's, hold
    the manifolds fixed.
    """

    columns: Sequence[Column] = (
        Column("precision", "Precision", low=0.0, high=1.0),
        Column("recall", "Recall", low=0.0, high=1.0),
    )

    def compare(self, x: Tensor, y: Tensor, x_index: Tensor, y_index: Tensor) -> dict[str, Estimate]:
        """Both shares."""
        inside = {"precision": within_manifold(x, y), "recall": within_manifold(y, x)}
        return {name: mean_estimates(hits.double()[:, None].numpy(), shares=True)[0] for name, hits in inside.items()}


def within_manifold(x: Tensor, y: Tensor, k: int = 3) -> Tensor:
    """Which rows of x (N, d) lie within the k-th nearest neighbour's distance of a row of y (M, d), (N,) bool.

    With at most k rows in y, the furthest row counts as the k-th.
    """
    size = max(1, _BLOCK // len(y))
    reach = min(k, len(y) - 1) + 1  # a row is its own nearest
    radius = torch.cat([torch.cdist(rows, y).kthvalue(reach, 1).values for rows in torch.split(y, size)])
    return torch.cat([(torch.cdist(rows, y) <= radius).any(1) for rows in torch.split(x, size)])


class ReferenceTwoSampleTest(SetMetric):
    """How well a classifier tells generated from reference latents, standardized.

    ``c2st_data`` is its :func:`~lcg_lightning.evaluation.metrics.two_samples.accuracy`: .5 for latents that follow the
    reference split, 1 for latents that are told apart.
    """

    columns: Sequence[Column] = (Column("c2st_data", "Told from data", higher_is_better=False, low=0.0, high=1.0),)

    def applies(self, setting: Setting) -> bool:
        """If a perfect method's latents follow the data."""
        return setting.matches_data

    def prepare(self, setting: Setting) -> None:
        """Records the width and the reference."""
        self.width = setting.latent_dim
        self.columns = (replace(self.columns[0], basis={"reference": setting.reference}),)

    def vectors(self, pictures: Pictures) -> Tensor:
        """Standardized latents (B, D)."""
        return pictures.z

    def compare(self, x: Tensor, y: Tensor, x_index: Tensor, y_index: Tensor) -> dict[str, Estimate]:
        """The accuracy."""
        n = min(len(x), len(y))  # equal halves, so that chance is one half
        return {"c2st_data": accuracy(x[:n].numpy(), y[:n].numpy())}

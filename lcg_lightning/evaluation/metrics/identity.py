"""Is it still the same person?"""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.intervals import Estimate, PerSampleMetric, bootstrap_mean


class IdentityCosine(PerSampleMetric):
    """Mean cosine between identity features of a source and of its edit, in [-1, 1], with a 95 % interval.

    One instance judges one step of a sequence of edits. A feature of length zero has cosine 0 with any other.

    >>> import torch
    >>> metric = IdentityCosine()
    >>> metric.update(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
    >>> metric.compute()
    Estimate(value=1.0, low=1.0, high=1.0)
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__(width=1)

    def update(self, source: Tensor, edited: Tensor, indices: Tensor) -> None:
        """Adds features (B, d) before and after the edit, with global sample indices (B,)."""
        self.append(F.cosine_similarity(source.double(), edited.double())[:, None], indices)

    def compute(self) -> Estimate:
        """The mean cosine.

        Raises:
            UserError: no sample, a sample counted twice, or features that are not finite.
        """
        cosines = self.gathered()
        if np.isnan(cosines).any():
            raise UserError("identity cosine: a feature is not finite; check the generator's images")
        return bootstrap_mean(cosines)[0]

"""How likely results are under a latent prior, and under a prior and a classifier together."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting
from lcg_lightning.formats.fingerprint import fingerprint
from lcg_lightning.models.load import load_prior


class OnManifold(PerSampleMetric):
    """Mean variational bound on log p(z) of the results, in nats, under a prior: how far they are from the data.

    The bound is that of :meth:`~lcg_lightning.models.prior.LatentPrior.elbo`, on standardized latents, by eight network
    evaluations for each sample. The data's own figure is that of the method ``Real``; a higher one means results that
    are more typical than the data, such as those of a strong guidance scale.

    Args:
        prior: checkpoint of a LatentPrior of the store's latents; best one that no method uses.
    """

    columns = (Column("elbo", "ELBO (nats)", digits=1),)

    def __init__(self, prior: Path) -> None:
        super().__init__(prior=prior)
        self.path = prior

    def prepare(self, setting: Setting) -> None:
        """Loads the prior.

        Raises:
            UserError: the file is not a prior of the store's latents.
        """
        assert setting.store is not None
        self.prior = load_prior(self.path, setting.store)
        self.columns = (replace(self.columns[0], basis={"prior": f"{self.path.name} @{fingerprint(self.prior)}"}),)

    def measure(self, samples: Judged) -> Tensor:
        """Bounds (B, 1)."""
        return self.prior.elbo(samples.result.z.float(), samples.index)[:, None]

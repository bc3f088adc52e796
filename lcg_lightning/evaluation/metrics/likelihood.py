"""How likely results are under a latent prior, and under a prior and a classifier together."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lcg_lightning.attributes import TOLERANCE, AttributeSchema
from lcg_lightning.conditions import And, Condition, log_prob, met, named, take
from lcg_lightning.conditions.tree import unscaled
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting
from lcg_lightning.formats.fingerprint import fingerprint
from lcg_lightning.models.clean import clean_outputs
from lcg_lightning.models.load import load_classifier, load_prior


class OnManifold(PerSampleMetric):
    """Mean variational bound on log p(z) of the results, in nats, under a prior: how far they are from the data.

    The bound is that of :meth:`~lcg_lightning.models.prior.LatentPrior.elbo`, on standardized latents, by eight network
    evaluations for each sample. The data's own figure is that of the method ``Real``. A higher one is no better:
    samples at the modes of the density have it, such as those of a strong guidance. So the leaderboard gives no ranks.

    Args:
        prior: checkpoint of a LatentPrior of the store's latents; best one that no method uses.
    """

    columns = (Column("elbo", "ELBO (nats)", digits=1, higher_is_better=None),)

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


class Bound(OnManifold):
    """Mean bound on log p(z | c) of the results, in nats: ELBO(z) + log p(c | z) - log p(c), with c what was asked.

    This is the bound that prior and classifier are trained to raise (arXiv 2304.12536). A result scores high if it is
    likely and shows what was asked; a rare condition counts for more. Scales in a condition are left out. Like the ELBO
    in it, it is highest at the modes, so the leaderboard gives no ranks.

    Args:
        prior: checkpoint of a LatentPrior of the store's latents.
        classifier: checkpoint of a LatentClassifier of them, read at the clean end; best one that guides no method.
    """

    columns = (Column("bound", "Bound (nats)", digits=1, higher_is_better=None),)

    def __init__(self, prior: Path, classifier: Path) -> None:
        super().__init__(prior)
        self.config["classifier"] = str(classifier)
        self.classifier_path = classifier

    def prepare(self, setting: Setting) -> None:
        """Loads both networks, and the labels of the train split.

        Raises:
            UserError: a file is not a network of the store's latents.
        """
        super().prepare(setting)
        assert setting.store is not None
        self.schema, self.labels = setting.schema, setting.store.split("train").labels
        self.classifier = load_classifier(self.classifier_path, setting.store)
        mark = f"{self.classifier_path.name} @{fingerprint(self.classifier)}"
        self.columns = (replace(self.columns[0], basis=self.columns[0].basis | {"classifier": mark}),)

    def measure(self, samples: Judged) -> Tensor:
        """Bounds (B, 1).

        Raises:
            UserError: the condition has no log-probability, see :func:`~lcg_lightning.conditions.log_prob`.
        """
        z, asked = samples.result.z.float(), And(tuple(unscaled(samples.asked)))
        outputs = clean_outputs(self.classifier, z)
        given = log_prob(asked, outputs, self.schema)
        return (
            super().measure(samples)
            + (given - log_frequency(asked, self.labels, len(z), self.schema).to(given))[:, None]
        )


def log_frequency(condition: Condition, labels: Tensor, batch: int, schema: AttributeSchema) -> Tensor:
    """Log p(c) (batch,) float64 of each sample's condition, from the share of label rows (N, A) that meet it.

    With k of N rows, p is (k + 1/2) / (N + 1), so a condition that no row meets has the finite log(1 / (2 N + 2)): its
    true log p(c) may be far lower, and a bound that subtracts this one too low by as much. Each continuous attribute
    that is named divides p by the width of the tolerance, which makes it a density on the unit scale, as in
    :func:`~lcg_lightning.conditions.log_prob`.
    """
    counts = [int(met(take(condition, torch.tensor([i])), labels, schema).sum()) for i in range(batch)]
    continuous = torch.tensor([attribute.kind == "continuous" for attribute in schema])
    numbers = (named(condition, schema, batch) & continuous).sum(1)
    share = (torch.tensor(counts, dtype=torch.float64) + 0.5) / (len(labels) + 1)
    return share.log() - numbers * math.log(2 * TOLERANCE)

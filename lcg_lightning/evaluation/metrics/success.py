"""One figure for an edit that should hit and keep the face: what a search over editing methods can maximize."""

from dataclasses import replace

import torch
from torch import Tensor

from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.accuracy import AttributeAccuracy
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting
from lcg_lightning.evaluation.metrics.identity import IdentityCosine


class EditSuccess(PerSampleMetric):
    """Mean over edits of the identity that is kept where everything asked is met, ``success``.

    An edit that misses counts 0, and so does one whose cosine is negative; an edit that meets all and keeps the face
    unchanged counts 1. So neither an unedited face nor a stranger with the right attributes scores. It is at most
    ``acc_joint``.
    """

    columns = (Column("success", "Success", low=0.0, high=1.0),)

    def __init__(self) -> None:
        super().__init__()
        self.accuracy, self.identity = AttributeAccuracy(), IdentityCosine()

    def applies(self, setting: Setting) -> bool:
        """For edits, if there are a judge and an identity network."""
        return self.accuracy.applies(setting) and self.identity.applies(setting)

    def prepare(self, setting: Setting) -> None:
        """Records the judge and the identity network."""
        self.accuracy.prepare(setting)
        self.identity.prepare(setting)
        self.columns = (replace(self.columns[0], basis=setting.basis("judge", "identity")),)

    def measure(self, samples: Judged) -> Tensor:
        """Identity of hits (B, 1) in [0, 1]; NaN where nothing was asked."""
        hit = self.accuracy.measure(samples)[:, list(self.accuracy.names).index("acc_joint")]
        kept = self.identity.measure(samples)[:, list(self.identity.names).index("id")].clamp(min=0)
        return torch.where(hit.isnan(), hit, hit * kept)[:, None]

"""A second opinion: accuracy and identity once more, by networks that nothing was trained or tuned with.

A method that is tuned on one judge can satisfy that judge and nobody else. The leaderboard marks a method whose joint
accuracy under the second judge is lower, beyond both intervals. Cosines of two networks have no common scale, so
identity is shown a second time, but not marked.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.accuracy import counted, joint_scores
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting
from lcg_lightning.formats.descriptions import plain_spec
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network


class SecondAccuracy(PerSampleMetric):
    """Joint accuracy by a second attribute network: ``acc_joint_second``.

    Args:
        judge: zoo name, YAML file, or its content, as for ``Evaluation.judge``.
    """

    columns: Sequence[Column] = (
        Column("acc_joint_second", "Joint accuracy, second judge", low=0.0, high=1.0, checks="acc_joint"),
    )
    shares = True

    def __init__(self, judge: str | dict[str, Any]) -> None:
        super().__init__(judge=plain_spec(judge))
        self.judge = load_attribute_judge(judge)

    def applies(self, setting: Setting) -> bool:
        """Where the truth is not known."""
        return "truth" not in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Limits the network to the store's attributes.

        Raises:
            UserError: the network does not know one of them.
        """
        self.schema, self.judge = setting.schema, self.judge.select(setting.schema)
        self.ends = counted(setting)
        basis = {"second judge": f"{self.judge.name} @{self.judge.fingerprint}"}
        self.columns = (replace(self.columns[0], basis=basis),)

    def measure(self, samples: Judged) -> Tensor:
        """1 where a sample meets all its targets, else 0, (B, 1)."""
        labels = [self.schema.predict(self.judge(step.images)) for step in samples.steps[self.ends]]
        return joint_scores(labels, samples.wanted[self.ends], self.schema).amin(1, keepdim=True)


class SecondIdentity(PerSampleMetric):
    """Cosine between source and last edit by a second identity network: ``id_second``.

    Args:
        network: zoo name, YAML file, or its content, as for ``Evaluation.identity``.
    """

    columns: Sequence[Column] = (Column("id_second", "Identity, second network", low=-1.0, high=1.0),)

    def __init__(self, network: str | dict[str, Any]) -> None:
        super().__init__(network=plain_spec(network))
        self.network = load_identity_network(network)

    def applies(self, setting: Setting) -> bool:
        """For edits, where the truth is not known."""
        return setting.edits and "truth" not in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the network."""
        basis = {"second identity": f"{self.network.name} @{self.network.fingerprint}"}
        self.columns = (replace(self.columns[0], basis=basis),)

    def measure(self, samples: Judged) -> Tensor:
        """Cosines (B, 1)."""
        assert samples.source is not None
        before, after = (p.embedded(self.network).double() for p in (samples.source, samples.result))
        return F.cosine_similarity(before, after)[:, None].clamp(-1, 1)  # rounding may exceed the range

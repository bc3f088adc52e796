"""The classifiers of clean latents that LACE and StyleFlow read attributes with."""

import math

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.datamodule import LatentBatch
from lcg_lightning.errors import UserError
from lcg_lightning.models.base import FROM_THE_COMMAND_LINE, LatentModule, check_arguments
from lcg_lightning.models.classifier import LatentClassifier, label_log_probs, label_scores
from lcg_lightning.networks.separate import SeparateClassifiers


class CleanClassifier(LatentModule):
    """p(c | z_0): a network per attribute, trained on latents without noise (LACE, arXiv 2110.10873, section 3).

    The loss is cross entropy for discrete attributes and squared error, over 2 sigma^2, for continuous ones. The
    networks are separate and AdamW is invariant to the scale of a loss, so sigma does not affect what they learn.

    Args:
        latent_dim: D, the number of values in a latent; taken from the data.
        attributes: the schema, as ``AttributeSchema.to_json`` gives it; taken from the data.
        widths: widths of the hidden layers of every network, at least one.
        sigma: standard deviation of continuous attributes around the prediction, on the unit scale, above 0.
        lr: AdamW's learning rate, above 0.
        weight_decay: AdamW's weight decay, at least 0.
        warmup_steps: optimizer steps over which the learning rate rises linearly; 0 for none.
        decay_steps: optimizer steps over which the learning rate falls to 0 along a cosine; None keeps it constant.
        ema_decay: decay of the averaged weights per optimizer step, in [0, 1).

    Raises:
        UserError: an argument is out of range.
    """

    ema: SeparateClassifiers
    net: SeparateClassifiers

    def __init__(
        self,
        latent_dim: int,
        attributes: list[dict[str, str | float | list[str]]],
        widths: tuple[int, ...] = (384, 256, 128),
        sigma: float = 0.1,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        warmup_steps: int = 1000,
        decay_steps: int | None = None,
        ema_decay: float = 0.0,
    ) -> None:
        check_arguments(locals())
        if not widths or min(widths) < 1:
            raise UserError(f"widths is {list(widths)}; give one or more widths of at least 1")
        if not 0 < sigma < math.inf:
            raise UserError(f"sigma is {sigma}; it must be above 0")
        schema = AttributeSchema.from_json(attributes)
        super().__init__(
            SeparateClassifiers(latent_dim, schema, widths, 2 * math.log(sigma)),
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
            ema_decay=ema_decay,
        )
        self.save_hyperparameters(ignore=FROM_THE_COMMAND_LINE)
        self.schema = schema
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.scores = nn.ModuleDict({stage: nn.ModuleList(MeanMetric() for _ in schema) for stage in ("val", "test")})

    def forward(self, z: Tensor) -> Tensor:
        """Outputs (B, K) of the averaged networks for clean latents z (B, D)."""
        out: Tensor = self.ema(z)
        return out

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Negative log-likelihood of a row's known labels, averaged over rows."""
        loss = -label_log_probs(self.net(batch["latents"]), batch["labels"], self.schema).sum(1).mean()
        self.log_loss(loss, batch_idx)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``val/loss`` and the accuracy per attribute."""
        self._measure("val", self.val_loss, batch)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``test/loss`` and the accuracy per attribute."""
        self._measure("test", self.test_loss, batch)

    def _measure(self, stage: str, loss: MeanMetric, batch: LatentBatch) -> None:
        outputs, labels = self(batch["latents"]), batch["labels"]
        loss.update(-label_log_probs(outputs, labels, self.schema).sum(1))
        self.log(f"{stage}/loss", loss, prog_bar=True)
        score, known = label_scores(outputs, labels, self.schema)
        metrics = self.scores[stage]
        assert isinstance(metrics, nn.ModuleList)
        for i, (name, metric) in enumerate(zip(self.schema.names, metrics, strict=True)):
            assert isinstance(metric, MeanMetric)
            metric.update(score[:, i], known[:, i].to(score))
            self.log(f"{stage}/accuracy/{name}", metric)


def clean_outputs(classifier: LatentClassifier | CleanClassifier, z: Tensor) -> Tensor:
    """Outputs (B, K) of a classifier for clean latents z (B, D)."""
    outputs: Tensor
    if isinstance(classifier, CleanClassifier):
        outputs = classifier(z)
    else:
        outputs = classifier(z, torch.zeros(len(z), device=z.device))
    return outputs

"""The latent classifier: predicts all attributes from noised latents, calibrated per noise level."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import Is, log_prob
from lcg_lightning.data.datamodule import LatentBatch, LatentDataModule, LatentLoader
from lcg_lightning.models.base import FROM_THE_COMMAND_LINE, NoisedLatentModule, ScheduleName, check_arguments
from lcg_lightning.models.calibration import fit_calibration
from lcg_lightning.networks.latent import LatentClassifierNet

REPORTED_LEVELS = 5
"""Number of equal time ranges for which accuracy is reported separately."""


def label_log_probs(outputs: Tensor, labels: Tensor, schema: AttributeSchema) -> Tensor:
    """Log-probability (B, A) of each label (B, A) under outputs (B, K); 0 where a label is NaN."""
    return torch.stack([log_prob(Is(n, labels[:, i]), outputs, schema) for i, n in enumerate(schema.names)], 1)


def label_scores(outputs: Tensor, labels: Tensor, schema: AttributeSchema) -> tuple[Tensor, Tensor]:
    """Whether outputs (B, K) find each label: scores (B, A), and which labels are known (B, A), bool.

    A discrete attribute scores 1 or 0, a continuous one 1 - |error| on the unit scale, an unknown label 0.
    """
    answer, truth = schema.unit(schema.predict(outputs)), schema.unit(labels)
    continuous = torch.tensor([a.kind == "continuous" for a in schema], device=labels.device)
    score = torch.where(continuous, 1 - (answer - truth).abs(), (answer == truth).to(answer))
    known = ~labels.isnan()
    return score.masked_fill(~known, 0.0), known


class LatentClassifier(NoisedLatentModule):
    """p_phi(c | z_t, t), trained with the negative log-likelihood of the known labels (arXiv 2304.12536).

    The averaged network is calibrated on the val split whenever a checkpoint is written and at the end of training.
    Training and ``val/loss`` use uncalibrated outputs. ``time_table``, ``forward_at``, ``forward`` and the test use the
    averaged weights and are calibrated.

    Args:
        latent_dim: D, the number of values in a latent; taken from the data.
        attributes: the schema, as ``AttributeSchema.to_json`` gives it; taken from the data.
        hidden: width of the hidden layers, at least 1.
        layers: number of linear layers, including the heads, at least 2.
        buckets: number of time ranges, each with its own calibration, at least 1.
        schedule: name of the noise schedule; must match the prior it guides.
        num_steps: T, the number of noise levels, at least 1; must match the prior it guides.
        lr: AdamW's learning rate, above 0.
        weight_decay: AdamW's weight decay, at least 0.
        warmup_steps: optimizer steps over which the learning rate rises linearly; 0 for none.
        decay_steps: optimizer steps over which the learning rate falls to 0 along a cosine; None keeps it constant.
        ema_decay: decay of the averaged weights per optimizer step, in [0, 1).
        seed: seed of the training and evaluation noise.

    Raises:
        UserError: an argument is out of range.
    """

    ema: LatentClassifierNet
    net: LatentClassifierNet
    cleaner = 3.0  # there is more to tell apart at clean levels, and edits ask at no others

    def __init__(
        self,
        latent_dim: int,
        attributes: list[dict[str, str | float | list[str]]],
        hidden: int = 512,
        layers: int = 4,
        buckets: int = 10,
        schedule: ScheduleName = "linear",
        num_steps: int = 1000,
        lr: float = 5e-4,
        weight_decay: float = 0.05,
        warmup_steps: int = 200,
        decay_steps: int | None = None,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        check_arguments(locals())
        schema = AttributeSchema.from_json(attributes)
        super().__init__(
            LatentClassifierNet(latent_dim, schema.num_outputs, num_steps, hidden, layers, buckets),
            schedule=schedule,
            num_steps=num_steps,
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
            ema_decay=ema_decay,
            seed=seed,
        )
        self.save_hyperparameters(ignore=FROM_THE_COMMAND_LINE)
        self.schema = schema
        self.val_loss, self.test_loss, self.test_log_prob = (MeanMetric() for _ in range(3))
        self.attribute_scores = nn.ModuleList(MeanMetric() for _ in schema)
        self.level_scores = nn.ModuleList(MeanMetric() for _ in range(REPORTED_LEVELS))
        self._calibrated = True

    def time_table(self, t: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One row of the averaged, calibrated network per time index in t (S,)."""
        return self.ema.time_table(t)

    def forward_at(self, z: Tensor, row: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Outputs (B, K) for z (B, D) at the shared time of a table row."""
        return self.ema.forward_at(z, row)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Outputs (B, K) of the averaged, calibrated network for z (B, D) at times t (B,)."""
        out: Tensor = self.ema(z, t)
        return out

    def read(self, z: Tensor) -> Tensor:
        """The most likely label rows (B, A), in natural units, of clean latents (B, D)."""
        return self.schema.predict(self(z, torch.zeros(len(z), device=z.device)))

    def log_probs(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Log-probability (B, A) of each label (B, A) under outputs (B, K); 0 where a label is NaN.

        For continuous attributes, it is the log density on the unit scale [0, 1].
        """
        return label_log_probs(outputs, labels, self.schema)

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Negative log-likelihood of a row's known labels, averaged over rows."""
        z0 = batch["latents"]
        t, eps = self.noise_for_training(z0, batch_idx)
        outputs = self.net.trunk(self.noised(z0, t, eps), t)
        loss = -self.log_probs(outputs, batch["labels"]).sum(1).mean()
        self.log_loss(loss, batch_idx)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``val/loss`` and the accuracy per attribute and per noise level."""
        z0, labels = batch["latents"], batch["labels"]
        t, eps = self.noise_for_evaluation(z0, batch["index"])
        outputs = self.ema.trunk(self.noised(z0, t, eps), t)
        self.val_loss.update(-self.log_probs(outputs, labels).sum(1))
        self.log("val/loss", self.val_loss, prog_bar=True)
        self._log_accuracy("val", outputs, labels, t)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimizer and marks the calibration as outdated."""
        super().optimizer_step(*args, **kwargs)
        self._calibrated = False

    def on_train_end(self) -> None:
        """Calibrates the final network."""
        self._calibrate()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Calibrates the network before it is saved."""
        self._calibrate()  # in place, so in the checkpoint's state dict too
        super().on_save_checkpoint(checkpoint)

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Fits the calibration on the val rows of all processes, unless it is up to date."""
        data = getattr(self.trainer, "datamodule", None)
        if self._calibrated or not isinstance(data, LatentDataModule):
            return
        loader, rows = data.val_dataloader(), []
        for batch in loader if isinstance(loader, LatentLoader) else []:
            z0, labels = batch["latents"].to(self.device), batch["labels"].to(self.device)
            t, eps = self.noise_for_evaluation(z0, batch["index"])
            rows.append((self.ema.trunk(self.noised(z0, t, eps), t), labels, self.ema.bucket(t)))
        if rows:
            outputs, labels, bucket = (torch.cat(parts) for parts in zip(*rows, strict=True))
            gain, shift = fit_calibration(outputs, labels, bucket, len(self.ema.gain), self.schema, self._total)
            self.ema.gain.copy_(gain)
            self.ema.shift.copy_(shift)
        self._calibrated = True

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``test/loss`` and accuracies over all noise levels, and ``test/log_prob``, log p(c | z0) in nats.

        The last is the classifier's term of log p(z0 | c) >= ELBO(z0) + log p(c | z0) - log p(c).
        """
        z0, labels = batch["latents"], batch["labels"]
        t, eps = self.noise_for_evaluation(z0, batch["index"])
        outputs = self(self.noised(z0, t, eps), t)
        self.test_loss.update(-self.log_probs(outputs, labels).sum(1))
        self.test_log_prob.update(self.log_probs(self(z0, torch.zeros_like(t)), labels).sum(1))
        self.log("test/loss", self.test_loss)
        self.log("test/log_prob", self.test_log_prob)
        self._log_accuracy("test", outputs, labels, t)

    def _log_accuracy(self, stage: str, outputs: Tensor, labels: Tensor, t: Tensor) -> None:
        """Accuracy over known labels; for continuous attributes, 1 - |error| on the unit scale."""
        score, known = label_scores(outputs, labels, self.schema)
        level = (t * REPORTED_LEVELS / len(self.levels)).long()
        for i, name in enumerate(self.schema.names):
            self._log_mean(f"{stage}/accuracy/{name}", self.attribute_scores[i], score[:, i], known[:, i])
        for k in range(REPORTED_LEVELS):
            at_level = known & (level == k)[:, None]
            self._log_mean(f"{stage}/accuracy_level/{k}", self.level_scores[k], score, at_level)

    def _log_mean(self, name: str, metric: nn.Module, values: Tensor, counted: Tensor) -> None:
        assert isinstance(metric, MeanMetric)
        metric.update(values, counted.to(values))
        self.log(name, metric)

    def _total(self, values: Tensor) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return total

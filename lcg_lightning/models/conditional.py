"""The conditional latent prior, for classifier-free guidance."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.datamodule import LatentBatch
from lcg_lightning.diffusion.bound import bits_per_dim
from lcg_lightning.diffusion.noise import generator_of
from lcg_lightning.errors import UserError
from lcg_lightning.models.base import FROM_THE_COMMAND_LINE, ScheduleName, check_arguments
from lcg_lightning.models.denoising import DenoisingModule, Output
from lcg_lightning.networks.latent import ConditionalMLP


class ConditionalPrior(DenoisingModule):
    """eps_theta(z_t, t, c) for any known subset c of the attributes (Ho and Salimans, arXiv 2207.12598).

    The network is that of ``LatentPrior``, with an embedding of the labels added to that of the time. Training makes
    labels unknown at random, so that one network predicts under any conjunction of attributes and without any. Each row
    draws a drop rate from U(0, 1) and loses each label at that rate, so every number of known labels, from none to all,
    is seen equally often. Edits give all labels: at a fixed rate of .5, one row in 256 would keep all 8.

    Args:
        latent_dim: D, the number of values in a latent; taken from the data.
        attributes: the schema, as ``AttributeSchema.to_json`` gives it; taken from the data.
        hidden: width of the hidden layers, at least 1.
        layers: number of linear layers, at least 2.
        time_hidden: width of the time embedding and of the labels', at least 1.
        drop_all: probability that all labels of a row are made unknown on top of that, in [0, 1).
        output: what the network predicts, as in ``LatentPrior``.
        schedule: name of the noise schedule.
        num_steps: T, the number of noise levels, at least 1.
        lr: AdamW's learning rate, above 0.
        weight_decay: AdamW's weight decay, at least 0.
        warmup_steps: optimizer steps over which the learning rate rises linearly; 0 for none.
        decay_steps: optimizer steps over which the learning rate falls to 0 along a cosine; None keeps it constant.
        ema_decay: decay of the averaged weights per optimizer step, in [0, 1).
        seed: seed of the training and evaluation noise, and of which labels are dropped.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        latent_dim: int,
        attributes: list[dict[str, str | float | list[str]]],
        hidden: int = 768,
        layers: int = 6,
        time_hidden: int = 256,
        drop_all: float = 0.1,
        output: Output = "residual",
        schedule: ScheduleName = "linear",
        num_steps: int = 1000,
        lr: float = 5e-4,
        weight_decay: float = 0.01,
        warmup_steps: int = 200,
        decay_steps: int | None = None,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        check_arguments(locals())
        if not 0 <= drop_all < 1:
            raise UserError(f"drop_all is {drop_all}; it must be at least 0 and below 1")
        schema = AttributeSchema.from_json(attributes)
        super().__init__(
            ConditionalMLP(latent_dim, num_features(schema), hidden, layers, time_hidden),
            output,
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
        self.schema, self.drop_all = schema, drop_all
        self.val_loss, self.val_bpd = MeanMetric(), MeanMetric()
        self.test_elbo, self.test_bpd, self.test_elbo_conditional = (MeanMetric() for _ in range(3))

    def features(self, labels: Tensor) -> Tensor:
        """What the network takes for label rows (B, A) in natural units, NaN where unknown; see :func:`features`."""
        return features(labels, self.schema)

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Mean squared error of the predicted noise, under labels of which some are dropped."""
        loss = self.training_error(batch["latents"], batch_idx, self.features(self.dropped(batch["labels"], batch_idx)))
        self.log_loss(loss, batch_idx)
        return loss

    def dropped(self, labels: Tensor, batch_idx: int) -> Tensor:
        """Labels (B, A) with some made unknown, by the seed, the epoch, the batch and the process."""
        key = (self.seed, self.current_epoch, batch_idx, self.global_rank, 1)  # 1: apart from the noise's stream
        generator = generator_of(*key, device=labels.device)
        chance = torch.rand(len(labels), labels.shape[1] + 2, generator=generator, device=labels.device)
        lost = (chance[:, 2:] < chance[:, :1]) | (chance[:, 1:2] < self.drop_all)
        return labels.masked_fill(lost, torch.nan)

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``val/loss``, given all known labels, and ``val/bpd``, the bound in bits per dimension given none."""
        z0, index = batch["latents"], batch["index"]
        self.val_loss.update(self.evaluation_error(z0, index, self.features(batch["labels"])))
        self.val_bpd.update(bits_per_dim(self.elbo(z0, index), z0.shape[1]))
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log("val/bpd", self.val_bpd, prog_bar=True)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``test/elbo`` (nats per sample) and ``test/bpd`` (bits per dimension) of standardized latents.

        Both are given no label; ``test/elbo_conditional`` is given all known ones.
        """
        z0, index = batch["latents"], batch["index"]
        nats = self.elbo(z0, index)
        self.test_elbo.update(nats)
        self.test_bpd.update(bits_per_dim(nats, z0.shape[1]))
        self.test_elbo_conditional.update(self.elbo(z0, index, self.features(batch["labels"])))
        self.log("test/elbo", self.test_elbo)
        self.log("test/bpd", self.test_bpd)
        self.log("test/elbo_conditional", self.test_elbo_conditional)


def num_features(schema: AttributeSchema) -> int:
    """Width C of :func:`features`."""
    return sum(2 if a.kind != "categorical" else len(a.classes) for a in schema)


def features(labels: Tensor, schema: AttributeSchema) -> Tensor:
    """Network inputs (B, C) of label rows (B, A) in natural units; those of an unknown label (NaN) are 0.

    A binary or continuous attribute gives its value, from -1 to 1, and 1 for being known; a number beyond its range
    counts as the nearer end. A categorical attribute gives 1 for its class.
    """
    parts = []
    for attribute, value in zip(schema, schema.unit(labels).unbind(1), strict=True):
        known = (~value.isnan()).to(labels)[:, None]
        value = value.nan_to_num()
        if attribute.kind == "categorical":
            parts.append(known * F.one_hot(value.long(), len(attribute.classes)))
        else:
            parts += [known * (2 * value[:, None].clamp(0, 1) - 1), known]
    return torch.cat(parts, 1)

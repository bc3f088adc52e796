"""StyleFlow's model: a conditional continuous normalizing flow of latents."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.datamodule import LatentBatch, LatentDataModule
from lcg_lightning.data.space import standardize
from lcg_lightning.diffusion.noise import generator_of, sample_noise
from lcg_lightning.diffusion.ode import dopri5
from lcg_lightning.errors import UserError
from lcg_lightning.models.base import FROM_THE_COMMAND_LINE, LatentModule, check_arguments
from lcg_lightning.models.conditional import features, num_features
from lcg_lightning.networks.flow import FlowField

CHUNK = 4096
"""Latents whose covariance is taken at once."""
FINER = 4
"""How many times as many steps measure a flow as train it."""
FLATTEST = 1e-6
"""Least variance of a direction that is whitened in full, as a share of the largest."""


class ConditionalFlow(LatentModule):
    """p(z | c) as a flow from N(0, I), trained by maximum likelihood (StyleFlow, arXiv 2008.02401, section 4).

    A latent at t = 0 flows along the field to t = 1, where it is standard normal, so
    log p(z | c) = log N(z(1); 0, I) + integral of the field's divergence. Training takes ``steps`` fixed steps of
    Heun's third-order rule and differentiates through them; the divergence is estimated along one random sign vector a
    sample (Hutchinson; FFJORD, arXiv 1810.01367). In place of the authors' batch normalization, a fixed linear layer
    whitens latents first: W of a StyleGAN2 has directions so flat that the field would be stiff along them. A fit finds
    the layer from the training rows; older checkpoints, without one, keep the identity.

    Latents of W+ are ``rows`` vectors that one flow maps alike, as in StyleFlow; their log-densities are added.

    Args:
        latent_dim: width of a flat latent; taken from the data.
        attributes: the schema, as ``AttributeSchema.to_json`` gives it; taken from the data.
        rows: number of rows L of a latent of W+; 1 for a latent that flows as a whole.
        hidden: width of the hidden layers, at least 1.
        layers: number of linear layers, at least 2.
        steps: Runge-Kutta steps of training. With too few, training finds fields under which latents are likely only at
            that number of steps; ``val/loss``, which takes four times as many, then rises.
        lr: AdamW's learning rate, above 0.
        weight_decay: AdamW's weight decay, at least 0.
        warmup_steps: optimizer steps over which the learning rate rises linearly; 0 for none.
        decay_steps: optimizer steps over which the learning rate falls to 0 along a cosine; None keeps it constant.
        ema_decay: decay of the averaged weights per optimizer step, in [0, 1).
        seed: seed of the random signs.

    Raises:
        UserError: an argument is out of range.
    """

    ema: FlowField
    net: FlowField
    whitening: Tensor

    def __init__(
        self,
        latent_dim: int,
        attributes: list[dict[str, str | float | list[str]]],
        rows: int = 1,
        hidden: int = 256,
        layers: int = 6,
        steps: int = 4,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 200,
        decay_steps: int | None = None,
        ema_decay: float = 0.99,
        seed: int = 0,
    ) -> None:
        check_arguments(locals())
        if steps < 1:
            raise UserError(f"steps is {steps}; it must be at least 1")
        if rows < 1 or latent_dim % rows:
            raise UserError(f"rows is {rows}; it must divide the latent's width, {latent_dim}")
        schema = AttributeSchema.from_json(attributes)
        super().__init__(
            FlowField(latent_dim // rows, num_features(schema), hidden, layers),
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
            ema_decay=ema_decay,
        )
        self.save_hyperparameters(ignore=FROM_THE_COMMAND_LINE)
        self.schema, self.rows, self.steps, self.seed = schema, rows, steps, seed
        self.register_buffer("whitening", torch.eye(latent_dim // rows))  # (D / L, D / L)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    def setup(self, stage: str) -> None:
        """Takes the statistics and, to fit, the whitening from the data; a resumed run keeps its checkpoint's.

        Raises:
            UserError: the training latents do not vary, or what any network on latents refuses.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, LatentDataModule):
            latents, _, _ = data.store.split("train")
            chunks = (standardize(part, data.store.mean, data.store.std) for part in torch.split(latents, CHUNK))
            self.whitening.copy_(whitening(map(self._split, chunks)))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for any network on latents; a flow of an older version has no whitening."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"].setdefault("whitening", torch.eye(len(self.whitening)))

    def to_noise(self, z: Tensor, labels: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
        """Standard normal values (B, D) of latents (B, D) under labels (B, A), and evaluations (B,) of the field."""
        noise, used = self._flow(self._whiten(z), labels, 0.0, 1.0, tolerance)
        return noise.reshape(z.shape), used

    def to_latents(self, noise: Tensor, labels: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`to_noise`."""
        white, used = self._flow(self._split(noise), labels, 1.0, 0.0, tolerance)
        return torch.linalg.solve(self.whitening, white, left=False).reshape(noise.shape), used

    def _flow(self, y: Tensor, labels: Tensor, start: float, end: float, tolerance: float) -> tuple[Tensor, Tensor]:
        c = self._condition(labels)
        found, used = dopri5(lambda t, y: self.ema(y, t, c)[0], y, start, end, tolerance)
        return found, used.reshape(len(labels), -1).sum(1) / self.rows

    def log_prob(self, net: FlowField, z: Tensor, labels: Tensor, tangent: Tensor, finer: int = 1) -> Tensor:
        """Log p(z | labels) (B,) in nats of latents (B, D), by Heun's third-order rule.

        The rule weighs its first and third slopes, so only these carry tangents. A library's solver would integrate the
        divergence with the state, and so compute it for the second slope too.

        Args:
            net: the field.
            z: latents (B, D).
            labels: (B, A) in natural units, NaN where unknown.
            tangent: vectors (P, B L, D / L) along which the divergence is taken: P = 1 with random signs gives an
                unbiased estimate, all unit vectors its exact value.
            finer: how many times as many steps to take as ``steps``.
        """
        c, y, steps = self._condition(labels), self._whiten(z), self.steps * finer
        h = 1.0 / steps
        volume = torch.linalg.slogdet(self.whitening).logabsdet.expand(len(y))
        for k in range(steps):
            first, spread = net(y, y.new_full((len(y),), k * h), c, tangent)
            second, _ = net(y + h / 3 * first, y.new_full((len(y),), (k + 1 / 3) * h), c)
            third, moved = net(y + 2 * h / 3 * second, y.new_full((len(y),), (k + 2 / 3) * h), c, tangent)
            y = y + h / 4 * (first + 3 * third)
            volume = volume + h / 4 * ((spread + 3 * moved) * tangent).sum((0, 2))
        normal = -0.5 * (y.square() + math.log(2 * math.pi)).sum(1)
        total: Tensor = (normal + volume).reshape(len(z), self.rows).sum(1)
        return total

    def _split(self, z: Tensor) -> Tensor:
        """Latents (B, D) as rows (B L, D / L)."""
        return z.reshape(len(z) * self.rows, -1)

    def _whiten(self, z: Tensor) -> Tensor:
        """Latents (B, D) as whitened rows (B L, D / L), never in less than float32: flat directions would drown."""
        with torch.autocast(z.device.type, enabled=False):
            return self._split(z) @ self.whitening

    def _condition(self, labels: Tensor) -> Tensor:
        """What the field takes for labels (B, A), once for each row (B L, C)."""
        return features(labels, self.schema).repeat_interleave(self.rows, 0)

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Negative log-likelihood per dimension, averaged over rows."""
        z = batch["latents"]
        generator = generator_of(self.seed, self.current_epoch, batch_idx, self.global_rank, device=z.device)
        signs = torch.randint(0, 2, z.shape, generator=generator, device=z.device).to(z) * 2 - 1
        log_p = self.log_prob(self.net, z, batch["labels"], self._split(signs)[None])
        loss = -log_p.mean() / z.shape[1]
        self.log_loss(loss, batch_idx)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``val/loss``, the negative log-likelihood per dimension in nats."""
        self._measure("val", self.val_loss, batch)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``test/loss``, the negative log-likelihood per dimension in nats."""
        self._measure("test", self.test_loss, batch)

    def _measure(self, stage: str, metric: MeanMetric, batch: LatentBatch) -> None:
        z = batch["latents"]
        signs = torch.where(sample_noise(self.seed, batch["index"], z.shape[1:]) < 0, -1.0, 1.0).to(z)
        log_p = self.log_prob(self.ema, z, batch["labels"], self._split(signs)[None], finer=FINER)
        metric.update(-log_p / z.shape[1])
        self.log(f"{stage}/loss", metric, prog_bar=True)


def whitening(chunks: Iterable[Tensor]) -> Tensor:
    """The symmetric matrix (D, D), float32, after which rows (N, D) of mean 0 have the covariance I.

    Directions with less variance than :data:`FLATTEST`, as where rows are too few, count as if they had that.

    Raises:
        UserError: no row differs from the mean, as where there is only one.
    """
    total, n = torch.zeros(()), 0
    for rows in chunks:
        total, n = total + rows.double().T @ rows.double(), n + len(rows)
    variances, axes = torch.linalg.eigh(total / n)
    if not variances[-1] > 0:
        raise UserError("flow: the training latents do not vary; it needs 2 or more rows that differ")
    matrix: Tensor = (axes * variances.clamp(min=FLATTEST * variances[-1]).rsqrt()) @ axes.T
    return matrix.float()

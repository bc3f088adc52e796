"""StyleFlow's model: a conditional continuous normalizing flow of latents."""

import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.datamodule import LatentBatch
from lcg_lightning.diffusion.noise import generator_of, sample_noise
from lcg_lightning.diffusion.ode import dopri5
from lcg_lightning.errors import UserError
from lcg_lightning.models.base import FROM_THE_COMMAND_LINE, LatentModule, check_arguments
from lcg_lightning.models.conditional import features, num_features
from lcg_lightning.networks.flow import FlowField


class ConditionalFlow(LatentModule):
    """p(z | c) as a flow from N(0, I), trained by maximum likelihood (StyleFlow, arXiv 2008.02401, section 4).

    A latent at t = 0 flows along the field to t = 1, where it is standard normal, so
    log p(z | c) = log N(z(1); 0, I) + integral of the field's divergence. Training takes ``steps`` fixed Runge-Kutta
    steps and differentiates through them; the divergence is estimated along one random sign vector a sample
    (Hutchinson; FFJORD, arXiv 1810.01367). Latents are standardized, so the authors' batch normalization is left out.

    Latents of W+ are ``rows`` vectors that one flow maps alike, as in StyleFlow; their log-densities are added.

    Args:
        latent_dim: width of a flat latent; taken from the data.
        attributes: the schema, as ``AttributeSchema.to_json`` gives it; taken from the data.
        rows: number of rows L of a latent of W+; 1 for a latent that flows as a whole.
        hidden: width of the hidden layers, at least 1.
        layers: number of linear layers, at least 2.
        steps: Runge-Kutta steps of training and of evaluation.
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
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    def to_noise(self, z: Tensor, labels: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
        """Standard normal values (B, D) of latents (B, D) under labels (B, A), and evaluations (B,) of the field."""
        return self._flow(z, labels, 0.0, 1.0, tolerance)

    def to_latents(self, noise: Tensor, labels: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`to_noise`."""
        return self._flow(noise, labels, 1.0, 0.0, tolerance)

    def _flow(self, z: Tensor, labels: Tensor, start: float, end: float, tolerance: float) -> tuple[Tensor, Tensor]:
        c = self._condition(labels)
        found, used = dopri5(lambda t, y: self.ema(y, t, c)[0], self._split(z), start, end, tolerance)
        return found.reshape(z.shape), used.reshape(len(z), -1).sum(1) / self.rows

    def log_prob(self, net: FlowField, z: Tensor, labels: Tensor, tangent: Tensor) -> Tensor:
        """Log p(z | labels) (B,) in nats of latents (B, D), by ``steps`` Runge-Kutta steps.

        Args:
            net: the field.
            z: latents (B, D).
            labels: (B, A) in natural units, NaN where unknown.
            tangent: vectors (P, B L, D / L) along which the divergence is taken: P = 1 with random signs gives an
                unbiased estimate, all unit vectors its exact value.
        """
        from torchdiffeq import odeint

        c = self._condition(labels)

        def field(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            velocity, moved = net(state[0], t.expand(len(c)), c, tangent)
            return velocity, (moved * tangent).sum((0, 2))

        y = self._split(z)
        span = torch.tensor([0.0, 1.0]).to(y)
        end, volume = odeint(
            field, (y, y.new_zeros(len(y))), span, method="rk4", options={"step_size": 1.0 / self.steps}
        )
        normal = -0.5 * (end[-1].square() + math.log(2 * math.pi)).sum(1)
        total: Tensor = (normal + volume[-1]).reshape(len(z), self.rows).sum(1)
        return total

    def _split(self, z: Tensor) -> Tensor:
        """Latents (B, D) as rows (B L, D / L)."""
        return z.reshape(len(z) * self.rows, -1)

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
        log_p = self.log_prob(self.ema, z, batch["labels"], self._split(signs)[None])
        metric.update(-log_p / z.shape[1])
        self.log(f"{stage}/loss", metric, prog_bar=True)

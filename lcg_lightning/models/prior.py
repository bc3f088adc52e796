"""The latent prior: a denoising diffusion model of standardized latents."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from lcg_lightning.data.datamodule import LatentBatch
from lcg_lightning.diffusion.bound import bits_per_dim, elbo_estimate
from lcg_lightning.diffusion.noise import sample_noise
from lcg_lightning.models.base import FROM_THE_COMMAND_LINE, NoisedLatentModule, ScheduleName, check_arguments
from lcg_lightning.networks.latent import LatentMLP

ELBO_DRAWS = 8
"""Network evaluations per sample of the variational bound."""


class LatentPrior(NoisedLatentModule):
    """eps_theta(z_t, t), trained with E ||eps - eps_theta||^2 (Ho et al., arXiv 2006.11239, eq. 14).

    The network's output F is the residual with respect to a standard normal prior:
    eps_theta = sqrt(1 - a) z_t + sqrt(a) F(z_t, t). This is EDM's preconditioning (arXiv 2206.00364, eq. 7) at unit
    data variance. Standardized latents are close to that prior, so F starts close to its target at every noise level.
    With ``output: eps``, the network predicts eps_theta directly, as in DiffAE.

    Sampling and evaluation (``time_table``, ``forward_at``, ``forward``) use the averaged weights.

    Args:
        latent_dim: D, the number of values in a latent; taken from the data.
        hidden: width of the hidden layers, at least 1.
        layers: number of linear layers, at least 2.
        time_hidden: width of the time embedding, at least 1.
        output: what the network predicts: "residual" as above, or "eps", the noise itself.
        schedule: name of the noise schedule.
        num_steps: T, the number of noise levels, at least 1.
        lr: AdamW's learning rate, above 0.
        weight_decay: AdamW's weight decay, at least 0.
        warmup_steps: optimizer steps over which the learning rate rises linearly; 0 for none.
        decay_steps: optimizer steps over which the learning rate falls to 0 along a cosine; None keeps it constant.
        ema_decay: decay of the averaged weights per optimizer step, in [0, 1).
        seed: seed of the training and evaluation noise.

    Raises:
        UserError: an argument is out of range.
    """

    ema: LatentMLP
    net: LatentMLP

    def __init__(
        self,
        latent_dim: int,
        hidden: int = 768,
        layers: int = 6,
        time_hidden: int = 256,
        output: Literal["residual", "eps"] = "residual",
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
        super().__init__(
            LatentMLP(latent_dim, hidden, layers, time_hidden=time_hidden),
            schedule=schedule,
            num_steps=num_steps,
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
            ema_decay=ema_decay,
            seed=seed,
        )
        self.save_hyperparameters(ignore=["attributes", *FROM_THE_COMMAND_LINE])
        self.output = output
        self.val_loss, self.val_bpd, self.test_elbo, self.test_bpd = (MeanMetric() for _ in range(4))

    def _mixing(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (S,) float64 of z_t and the network's output in eps_theta, at times t (S,).

        They are sqrt(1 - a) and sqrt(a), or 0 and 1 with ``output: eps``.
        """
        if self.output == "eps":
            return torch.zeros_like(t, dtype=torch.float64), torch.ones_like(t, dtype=torch.float64)
        logsnr = self.schedule.logsnr_at(t)
        return torch.sigmoid(-logsnr).sqrt(), torch.sigmoid(logsnr).sqrt()

    def time_table(self, t: Tensor) -> list[tuple[Tensor, float, float]]:
        """One row (factors of the averaged network, the two weights) per time index in t (S,)."""
        noise, signal = self._mixing(t)
        return list(zip(self.ema.time_table(t), noise.tolist(), signal.tolist(), strict=True))

    def forward_at(self, z: Tensor, row: tuple[Tensor, float, float]) -> Tensor:
        """Predicted noise (B, D) for z (B, D) at the shared time of a table row."""
        factors, noise, signal = row
        return noise * z + signal * self.ema.forward_at(z, factors)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Predicted noise (B, D) of the averaged network for z (B, D) at times t (B,)."""
        return self._predict(self.ema, z, t)

    def _predict(self, net: LatentMLP, z: Tensor, t: Tensor) -> Tensor:
        noise, signal = (c.to(z)[:, None] for c in self._mixing(t))
        out: Tensor = noise * z + signal * net(z, t)
        return out

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Mean squared error of the predicted noise, over samples and dimensions."""
        z0 = batch["latents"]
        t, eps = self.noise_for_training(z0, batch_idx)
        loss = (self._predict(self.net, self.noised(z0, t, eps), t) - eps).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``val/loss`` and ``val/bpd``, the variational bound in bits per dimension."""
        z0 = batch["latents"]
        t, eps = self.noise_for_evaluation(z0, batch["index"])
        self.val_loss.update((self(self.noised(z0, t, eps), t) - eps).square().mean(1))
        self.val_bpd.update(bits_per_dim(self.elbo(z0, batch["index"]), z0.shape[1]))
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log("val/bpd", self.val_bpd, prog_bar=True)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``test/elbo`` (nats per sample) and ``test/bpd`` (bits per dimension) of standardized latents."""
        z0 = batch["latents"]
        nats = self.elbo(z0, batch["index"])
        self.test_elbo.update(nats)
        self.test_bpd.update(bits_per_dim(nats, z0.shape[1]))
        self.log("test/elbo", self.test_elbo)
        self.log("test/bpd", self.test_bpd)

    def elbo(self, z0: Tensor, index: Tensor) -> Tensor:
        """Estimated variational bound (B,), in nats, on log p(z0) for z0 (B, D); index (B,) determines the noise."""
        noise = sample_noise(self.seed, index, (ELBO_DRAWS, z0.shape[1]), draw=2)
        uniform = torch.special.ndtr(sample_noise(self.seed, index, (1,), draw=3)[:, 0])
        return elbo_estimate(self, z0, self.schedule, noise.to(z0), uniform.to(z0))

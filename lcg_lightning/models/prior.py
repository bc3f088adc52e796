"""The latent prior: a denoising diffusion model of standardized latents."""

from torch import Tensor
from torchmetrics import MeanMetric

from lcg_lightning.data.datamodule import LatentBatch
from lcg_lightning.diffusion.bound import bits_per_dim
from lcg_lightning.models.base import FROM_THE_COMMAND_LINE, ScheduleName, check_arguments
from lcg_lightning.models.denoising import DenoisingModule, Output
from lcg_lightning.networks.latent import LatentMLP


class LatentPrior(DenoisingModule):
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

    def __init__(
        self,
        latent_dim: int,
        hidden: int = 768,
        layers: int = 6,
        time_hidden: int = 256,
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
        super().__init__(
            LatentMLP(latent_dim, hidden, layers, time_hidden=time_hidden),
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
        self.save_hyperparameters(ignore=["attributes", *FROM_THE_COMMAND_LINE])
        self.val_loss, self.val_bpd, self.test_elbo, self.test_bpd = (MeanMetric() for _ in range(4))

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Mean squared error of the predicted noise, over samples and dimensions."""
        z0 = batch["latents"]
        loss = self.training_error(z0, batch_idx)
        self.log_loss(loss, batch_idx)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Logs ``val/loss`` and ``val/bpd``, the variational bound in bits per dimension."""
        z0 = batch["latents"]
        self.val_loss.update(self.evaluation_error(z0, batch["index"]))
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

"""What prior and classifier share in training: noised latents, averaged weights, the optimizer."""

import copy
import math
from typing import Any, Literal, cast

import lightning as L
import torch
from torch import Tensor, nn

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.diffusion.noise import generator_of, sample_noise
from lcg_lightning.diffusion.schedule import make_schedule, q_sample

ScheduleName = Literal["linear", "cosine", "constant"]


class NoisedLatentModule(L.LightningModule):
    """Trains ``net`` on noised latents and keeps ``ema``, an exponential average of its weights.

    Training noise is drawn from (seed, epoch, batch index, rank), so a resumed run repeats the
    uninterrupted one bit for bit; evaluation noise belongs to the sample. Both networks live in the state
    dict, hence in every checkpoint.

    Args:
        net: the network to train.
        schedule: name of the noise schedule.
        num_steps: T, its number of steps.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        warmup_steps: optimizer steps over which the learning rate rises linearly.
        decay_steps: optimizer steps at whose end a cosine has brought the learning rate to 0; None keeps it.
        ema_decay: share of the average kept per optimizer step; (1 + n) / (10 + n) while that is smaller.
        seed: of the noise.
    """

    levels: Tensor
    statistics: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation (*latent_shape) float64 that standardize the latents it was trained on."""

    def __init__(
        self,
        net: nn.Module,
        *,
        schedule: ScheduleName,
        num_steps: int,
        lr: float,
        weight_decay: float,
        warmup_steps: int,
        decay_steps: int | None,
        ema_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.net = net
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.schedule = make_schedule(schedule, num_steps)
        self.register_buffer("levels", self.schedule.alpha_bar, persistent=False)  # (T,) float64
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.decay_steps = warmup_steps, decay_steps
        self.ema_decay = ema_decay
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Keeps what standardizes the data of a fit."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, LatentDataModule):
            self.statistics = data.store.mean, data.store.std

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Writes what standardizes its latents beside the weights."""
        checkpoint["statistics"] = self.statistics

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reads it, unless a fit has set it from its data."""
        self.statistics = self.statistics or checkpoint.get("statistics", checkpoint.get("whitening"))

    def noise_for_training(self, z0: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Times (B,) int64, spread evenly over 0 .. T-1 from a random start, and noise of z0's shape."""
        generator = generator_of(self.seed, self.current_epoch, batch_idx, self.global_rank, device=z0.device)
        start = torch.rand((), generator=generator, device=z0.device, dtype=torch.float64)
        spread = torch.arange(len(z0), device=z0.device, dtype=torch.float64) / len(z0)
        t = ((start + spread) % 1 * len(self.levels)).long()
        return t, torch.randn(z0.shape, generator=generator, device=z0.device, dtype=z0.dtype)

    def noise_for_evaluation(self, z0: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Times (B,) int64, uniform over 0 .. T-1, and noise of z0's shape, set by index (B,) alone."""
        uniform = torch.special.ndtr(sample_noise(self.seed, index, (1,), draw=1)[:, 0].double())
        t = (uniform * len(self.levels)).long().clamp(max=len(self.levels) - 1)
        return t.to(z0.device), sample_noise(self.seed, index, z0.shape[1:]).to(z0)

    def noised(self, z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """z_t (B, D) for clean latents (B, D), times (B,) and noise (B, D)."""
        return q_sample(z0, self.levels[t], eps)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step of the optimizer, then one of the average."""
        step = self.global_step
        super().optimizer_step(*args, **kwargs)
        keep = min(self.ema_decay, (1 + step) / (10 + step))
        average = cast(list[Tensor], list(self.ema.parameters()))
        torch._foreach_lerp_(average, [p.detach() for p in self.net.parameters()], 1 - keep)

    def configure_optimizers(self) -> Any:
        """AdamW, with the learning rate's warmup and decay."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _lr_factor(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay_steps is None:
            return warmup
        return warmup * (1 + math.cos(math.pi * min(1.0, step / self.decay_steps))) / 2

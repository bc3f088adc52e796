"""The training that networks on latents share: averaged weights, the optimizer, noised latents."""

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.diffusion.noise import generator_of, sample_noise
from lcg_lightning.diffusion.schedule import make_schedule, q_sample
from lcg_lightning.errors import UserError
from lcg_lightning.files import plain

ScheduleName = Literal["linear", "cosine", "constant"]

_AT_LEAST = {
    "latent_dim": 1,
    "hidden": 1,
    "layers": 2,
    "time_hidden": 1,
    "buckets": 1,
    "num_steps": 1,
    "weight_decay": 0,
    "warmup_steps": 0,
    "decay_steps": 1,
    "ema_decay": 0,
}
FROM_THE_COMMAND_LINE = ["_class_path", "_instantiator"]
"""Entries that LightningCLI adds to a module's arguments: the class path, which may change."""
_OPTIONAL = ("decay_steps",)
_NOT_OF_THE_NETWORK = ("lr", "weight_decay", "warmup_steps", "decay_steps", "ema_decay", "seed")
_SAME_STORE = "give the store that it was trained on"
_MAY_CHANGE = ("warmup_steps", "decay_steps")  # a resumed run may change its learning-rate schedule


def check_arguments(given: Mapping[str, Any]) -> None:
    """Check a module's arguments by name; unknown names are ignored.

    Raises:
        UserError: an argument is out of range; the message names it and gives the range.
    """
    for name, low in _AT_LEAST.items():
        value = given.get(name, low)
        if value is None and name in _OPTIONAL:
            continue
        if value is None or not low <= value < math.inf:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    if not 0 < given["lr"] < math.inf:
        raise UserError(f"lr is {given['lr']}; it must be above 0")
    if given["ema_decay"] >= 1:
        raise UserError(f"ema_decay is {given['ema_decay']}; it must be below 1 (0 averages nothing)")


class LatentModule(L.LightningModule):
    """Trains ``net`` on latents and keeps ``ema``, an exponential moving average of its weights.

    Checkpoints hold both networks, and the statistics that standardize the latents.

    Args:
        net: the network to train.
        lr: AdamW's learning rate, above 0.
        weight_decay: AdamW's weight decay, at least 0.
        warmup_steps: optimizer steps over which the learning rate rises linearly; 0 for none.
        decay_steps: optimizer steps over which the learning rate falls to 0 along a cosine; None keeps it constant.
        ema_decay: decay of the average per optimizer step, in [0, 1); step n uses (1 + n) / (10 + n) while that is
            smaller.
    """

    statistics: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation (*latent_shape), float64, that standardize the latents."""
    _stage: str | None = None

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float,
        weight_decay: float,
        warmup_steps: int,
        decay_steps: int | None,
        ema_decay: float,
    ) -> None:
        super().__init__()
        self.net = net
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_steps, self.decay_steps = warmup_steps, decay_steps
        self.ema_decay = ema_decay

    def setup(self, stage: str) -> None:
        """Takes the statistics from the data.

        Raises:
            UserError: the test latents are standardized with other statistics than the training latents.
        """
        self._stage = stage
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, LatentDataModule):
            own = data.store.mean, data.store.std
            if stage != "fit" and self.statistics and not same_statistics(self.statistics, own):
                raise UserError(f"{data.store.path}: latents that are standardized by other statistics; {_SAME_STORE}")
            self.statistics = own

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the statistics of the latents with the weights."""
        checkpoint["statistics"] = self.statistics

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reads the statistics, and checks that a resumed run has the same configuration.

        Raises:
            UserError: the checkpoint belongs to other latents, or to a module with other arguments.
        """
        found = checkpoint.get("statistics", checkpoint.get("whitening"))
        if found is not None and not (_tensors(found) and len(found) == 2):
            where = f"{self.trainer.ckpt_path}: " if self._stage else ""
            what = "the statistics of the checkpoint are not a mean and a standard deviation"
            raise UserError(f"{where}{what}; train it again")
        if self._stage is None:  # no trainer, as in load_from_checkpoint
            self.statistics = found
            return
        path = self.trainer.ckpt_path
        if self.statistics and found and not same_statistics(self.statistics, found):
            raise UserError(f"{path}: made for latents that are standardized by other statistics; {_SAME_STORE}")
        self.statistics = self.statistics or found
        free = _MAY_CHANGE if self._stage == "fit" else _NOT_OF_THE_NETWORK
        before = checkpoint.get("hyper_parameters", {})
        for name, value in self.hparams.items():
            if name not in free and plain(before.get(name, value)) != plain(value):
                raise UserError(
                    f"{path}: made with {name} {_short(before[name])}, but {name} is {_short(value)} here; "
                    "give the configuration that it was made with"
                )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimizer, then updates the average."""
        step = self.global_step
        super().optimizer_step(*args, **kwargs)
        keep = min(self.ema_decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(keep)(list(self.ema.parameters()), list(self.net.parameters()), step)  # type: ignore[no-untyped-call]

    def log_loss(self, loss: Tensor, batch_idx: int) -> None:
        """Logs ``train/loss`` where the trainer's loggers record it, and at both ends of an epoch.

        Lightning takes a millisecond to log, a tenth of a small network's step.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if batch_idx == 0 or self.trainer.is_last_batch or (every and (self.global_step + 1) % every == 0):
            self.log("train/loss", loss)

    def configure_optimizers(self) -> Any:
        """AdamW, with warmup and decay of the learning rate."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
        optimizer._step_supports_amp_scaling = False  # else Lightning refuses to clip in mixed precision
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _lr_factor(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay_steps is None:
            return warmup
        return warmup * (1 + math.cos(math.pi * min(1.0, step / self.decay_steps))) / 2


class NoisedLatentModule(LatentModule):
    """Trains a network on noised latents.

    Training noise is seeded by (seed, epoch, batch index, rank), so a resumed run repeats the uninterrupted one bit for
    bit. Evaluation noise depends only on the sample.

    Args:
        net: the network to train.
        schedule: name of the noise schedule.
        num_steps: T, the number of noise levels, at least 1.
        seed: seed of the noise.
        training: arguments of :class:`LatentModule`.
    """

    levels: Tensor
    cleaner: float = 1.0
    """Training times are T u^cleaner for uniform u; above 1, the cleaner levels are visited more often."""

    def __init__(self, net: nn.Module, *, schedule: ScheduleName, num_steps: int, seed: int, **training: Any) -> None:
        super().__init__(net, **training)
        self.schedule = make_schedule(schedule, num_steps)
        self.register_buffer("levels", self.schedule.alpha_bar, persistent=False)  # (T,) float64
        self.seed = seed

    def noise_for_training(self, z0: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Times (B,) int64 and noise of z0's shape.

        The times are T u^cleaner, u evenly spaced over [0, 1) with a random offset.
        """
        generator = generator_of(self.seed, self.current_epoch, batch_idx, self.global_rank, device=z0.device)
        start = torch.rand((), generator=generator, device=z0.device, dtype=torch.float64)
        spread = torch.arange(len(z0), device=z0.device, dtype=torch.float64) / len(z0)
        t = (((start + spread) % 1) ** self.cleaner * len(self.levels)).long()
        return t, torch.randn(z0.shape, generator=generator, device=z0.device, dtype=z0.dtype)

    def noise_for_evaluation(self, z0: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Times (B,) int64, uniform over 0 .. T-1, and noise of z0's shape; both depend only on index (B,)."""
        uniform = torch.special.ndtr(sample_noise(self.seed, index, (1,), draw=1)[:, 0].double())
        t = (uniform * len(self.levels)).long().clamp(max=len(self.levels) - 1)
        return t.to(z0.device), sample_noise(self.seed, index, z0.shape[1:]).to(z0)

    def noised(self, z0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """z_t (B, D) for clean latents (B, D), times (B,) and noise (B, D)."""
        return q_sample(z0, self.levels[t], eps)


def same_statistics(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    """Whether two pairs of mean and standard deviation, of any shape, agree to float32 precision."""
    return all(
        x.numel() == y.numel() and torch.allclose(x.flatten().cpu(), y.flatten().cpu(), rtol=1e-4, atol=1e-6)
        for x, y in zip(a, b, strict=True)
    )


def _tensors(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(each, Tensor) for each in value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}..."

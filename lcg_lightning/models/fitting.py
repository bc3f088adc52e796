"""Safeguards of every fit: it keeps its last state and stops when a number is not finite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic, ensure_writable
from lcg_lightning.formats.checkpoints import check_weights, read_checkpoint

LAST = "last.ckpt"
_RESUMABLE = ("state_dict", "loops", "optimizer_states", "lr_schedulers")


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints of one module: written atomically, only with finite weights, and checked when read.

    Args:
        module: the module that is trained or tested.
        fitting: whether a checkpoint must hold a state to resume from, not only weights.
    """

    def __init__(self, module: LightningModule, fitting: bool) -> None:
        self.module, self.fitting = module, fitting

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file.

        Raises:
            UserError: the file cannot be written, or a weight is not finite; an existing file stays unchanged.
        """
        check_weights(self.module, checkpoint["state_dict"], Path(path))
        # given a path instead of a file, torch says nothing of a full disk
        with atomic(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content of a file, read without running code.

        Raises:
            UserError: the file is missing, damaged, foreign, from another module, or has weights that are not finite.
        """
        checkpoint = read_checkpoint(Path(path))
        state = checkpoint.get("state_dict")
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise UserError(f"{path}: holds no module that `lcg fit` trained; give its {LAST}")
        check_weights(self.module, state, Path(path))
        if self.fitting and (lacking := [key for key in _RESUMABLE if key not in checkpoint]):
            raise UserError(f"{path}: holds weights but no {lacking[0]}, so no training can resume from it")
        return checkpoint


class CheckedCheckpoints(Callback):
    """Installs :class:`CheckpointFiles` for checkpoints, unless the user chose another plugin."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replaces Lightning's own reader and writer."""
        if type(trainer.strategy.checkpoint_io) in (TorchCheckpointIO, CheckpointFiles):
            fitting = trainer.state.fn == TrainerFn.FITTING
            trainer.strategy.checkpoint_io = CheckpointFiles(pl_module, fitting)


class LastCheckpoint(Checkpoint):
    """Keeps the last state of a fit in ``last.ckpt`` in the trainer's ``default_root_dir``, and prints its path.

    The file is written after every epoch with a validation (see ``check_val_every_n_epoch``) and at the end of
    training. It works alongside other checkpoint callbacks.
    """

    def __init__(self) -> None:
        self._saved = -1  # global step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after epochs with a validation."""
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the final state unless it has been saved already."""
        self._save(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the path of the last state, or that there was nothing to train."""
        if not trainer.is_global_zero:
            return
        if self._saved >= 0:
            print(f"wrote {self._path(trainer)}")
        else:
            done = f"{trainer.current_epoch} epochs and {trainer.global_step} steps are done"
            print(f"nothing to train: {done}; raise --trainer.max_epochs, or the limit that ended the run")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Has a run that ended within an epoch resume within it; Lightning would begin the next one."""
        loop = checkpoint["loops"]["fit_loop"]
        batches = loop["epoch_loop.batch_progress"]["current"]["completed"]
        if 0 < batches < trainer.num_training_batches:
            for count in loop["epoch_progress"].values():
                count["processed"] = count["completed"] = count["started"] - 1

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved:
            trainer.save_checkpoint(self._path(trainer), weights_only=False)
            self._saved = trainer.global_step

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir, LAST)


def refuse_to_overwrite(folder: str | Path | None, resumed: str | Path | None) -> None:
    """Check that a fit does not overwrite another fit's last state, and that it can write its own.

    Args:
        folder: the trainer's ``default_root_dir``.
        resumed: checkpoint from which the fit resumes.

    Raises:
        UserError: ``folder`` holds the last state of another run, or is not writable.
    """
    path = Path(folder or ".", LAST)
    if path.exists() and (resumed is None or Path(resumed).resolve().parent != path.parent.resolve()):
        raise UserError(
            f"{path} is the last state of another fit; resume it with --ckpt_path={path}, or give another "
            "--trainer.default_root_dir"
        )
    ensure_writable(path.parent)


class StopAtNonFinite(Callback):
    """Ends a fit at the first optimizer step after which the loss or a weight is not finite.

    The step number is kept on the device. It is read only every ``log_every_n_steps``, at the end of an epoch and
    before a checkpoint is written, so that a GPU does not wait for the CPU at every step.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None  # () int64, 0 while all was finite

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Checks the loss and the weights."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        weights = [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm(weights)  # the largest weight would take 30 times as long on a CPU
        finite = norm.isfinite() if loss is None else norm.isfinite() & loss.isfinite()
        first = torch.zeros((), dtype=torch.int64, device=norm.device) if self._first is None else self._first
        self._first = torch.where(finite | (first > 0), first, trainer.global_step)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.is_last_batch or (every and (batch_idx + 1) % every == 0):
            self._check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stops the fit before a state that is not finite is saved."""
        self._check()

    def _check(self) -> None:
        if self._first is not None and (step := int(self._first)):
            raise UserError(
                f"training stopped: the loss or a weight is not finite at step {step}; lower lr, or clip gradients "
                "with --trainer.gradient_clip_val=1"
            )

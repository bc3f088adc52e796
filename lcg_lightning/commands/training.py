"""``lcg fit``, ``validate`` and ``test``: Lightning's Trainer on a module and data that YAML names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import lcg_lightning.commands.methods
import lcg_lightning.data.datamodule
import lcg_lightning.evaluation.module
import lcg_lightning.evaluation.tasks
import lcg_lightning.models.classifier
import lcg_lightning.models.prior
import lcg_lightning.recipes.zoo  # noqa: F401 - named bare in YAML
from lcg_lightning.commands.guide import guide
from lcg_lightning.errors import UserError
from lcg_lightning.models.fitting import CheckedCheckpoints, LastCheckpoint, StopAtNonFinite, refuse_to_overwrite

_RAISING: dict[str, Any] = {"exit_on_error": False}  # parsers that leave it to main to say what is wrong


class SaveRunConfig(SaveConfigCallback):
    """Keeps the full configuration of a fit beside its logs, where a second run does not collide with it."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes ``config.yaml`` into the folder of the logger's run; nothing without a logger."""
        if stage != "fit" or trainer.logger is None:
            return
        logger = trainer.logger
        folder = logger.log_dir or Path(logger.save_dir or ".", str(logger.name), str(logger.version))
        path = Path(folder, "config.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, path, skip_unset=False, overwrite=True, multifile=False)


class CLI(LightningCLI):
    """LightningCLI with the widths and the schema of the data linked into the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what a model must know of its data."""
        for name in ("latent_dim", "attributes"):
            parser.link_arguments(
                "data",
                f"model.init_args.{name}",
                lambda data, n=name: getattr(data, n, None),
                apply_on="instantiate",
            )

    def _parse_ckpt_path(self) -> None:
        """Leaves the model as it is configured; Lightning would take the checkpoint's arguments for it."""

    def before_instantiate_classes(self) -> None:
        """Refuses what the Trainer would divide by, or miss only when the run is under way."""
        config = self.config[self.subcommand]
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            value = config.trainer.get(name)
            if value is not None and value < 1:
                raise UserError(f"trainer.{name} is {value}; it must be at least 1")
        path = config.get("ckpt_path")
        if path is not None and not Path(path).is_file():
            raise UserError(f"ckpt_path: {path} is no file; give a checkpoint that `lcg fit` wrote")
        keeps = config.trainer.enable_checkpointing is not False and not config.trainer.fast_dev_run
        always = [CheckedCheckpoints(), StopAtNonFinite()]
        self.trainer_defaults["callbacks"] = [*always, *([LastCheckpoint()] if keeps else [])]
        if self.subcommand == "fit" and keeps:
            refuse_to_overwrite(config.trainer.default_root_dir, path)


def run(args: Sequence[str]) -> CLI:
    """One of Lightning's subcommands, as from the command line; returns its trainer, model and data."""
    parsers = {stage: {"usage": guide(stage).replace("%", "%%"), "description": None} for stage in CLI.subcommands()}
    return CLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults={"enable_model_summary": False},  # its FLOPs are 0 for networks that are called in parts
        parser_kwargs={**_RAISING, "prog": "lcg", **{stage: kwargs | _RAISING for stage, kwargs in parsers.items()}},
        args=list(args),
    )

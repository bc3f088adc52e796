"""``lcg fit``, ``validate`` and ``test``: runs Lightning's Trainer with a module and data named in YAML."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

import lcg_lightning.commands.methods
import lcg_lightning.data.datamodule
import lcg_lightning.evaluation.metrics.likelihood
import lcg_lightning.evaluation.metrics.second
import lcg_lightning.evaluation.metrics.sets
import lcg_lightning.evaluation.metrics.success
import lcg_lightning.evaluation.module
import lcg_lightning.evaluation.tasks
import lcg_lightning.models.classifier
import lcg_lightning.models.clean
import lcg_lightning.models.conditional
import lcg_lightning.models.flow
import lcg_lightning.models.prior
import lcg_lightning.recipes.encoder
import lcg_lightning.recipes.generator
import lcg_lightning.recipes.second_judges
import lcg_lightning.recipes.zoo  # noqa: F401 - named bare in YAML
from lcg_lightning.commands.listing import listing
from lcg_lightning.data.distributed import refuse_miscounted
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.module import Evaluation
from lcg_lightning.models.base import LatentModule
from lcg_lightning.models.fitting import CheckedCheckpoints, LastCheckpoint, StopAtNonFinite, refuse_to_overwrite

_RAISING: dict[str, Any] = {"exit_on_error": False}  # main reports parser errors


class SaveRunConfig(SaveConfigCallback):
    """Saves a fit's full configuration with its logs, so that a second run does not overwrite it."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes ``config.yaml`` into the logger's run folder; does nothing without a logger."""
        if stage != "fit" or trainer.logger is None:
            return
        logger = trainer.logger
        folder = logger.log_dir or Path(logger.save_dir or ".", str(logger.name), str(logger.version))
        path = Path(folder, "config.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, path, skip_unset=False, overwrite=True, multifile=False)


class CLI(LightningCLI):
    """LightningCLI for one subcommand that links the data's latent size and schema to the model."""

    def __init__(self, stage: str, **options: Any) -> None:
        self.stage = stage
        super().__init__(**options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # Lightning's is static
        """The one that runs: each has a parser of its own, which takes long to build."""
        return {self.stage: LightningCLI.subcommands()[self.stage]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links the model's arguments that depend on the data."""
        for name in ("latent_dim", "attributes"):
            parser.link_arguments(
                "data",
                f"model.init_args.{name}",
                lambda data, n=name: getattr(data, n, None),
                apply_on="instantiate",
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Keeps the command line for the record."""
        self.given = [str(arg) for arg in args] if isinstance(args, list) else None
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Keeps the configured model arguments; Lightning would replace them with the checkpoint's."""

    def before_instantiate_classes(self) -> None:
        """Refuses Trainer arguments and checkpoint paths that would fail only later, during the run."""
        config = self.config[self.subcommand]
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            value = config.trainer.get(name)
            if value is not None and value < 1:
                raise UserError(f"trainer.{name} is {value}; it must be at least 1")
        path = config.get("ckpt_path")
        if path is not None and not Path(path).is_file():
            raise UserError(f"ckpt_path: {path} is not a file; give a checkpoint that `lcg fit` wrote")
        keeps = config.trainer.enable_checkpointing is not False and not config.trainer.fast_dev_run
        always = [CheckedCheckpoints(), StopAtNonFinite()]
        self.trainer_defaults["callbacks"] = [*always, *([LastCheckpoint()] if keeps else [])]
        if self.subcommand == "fit" and keeps:
            refuse_to_overwrite(config.trainer.default_root_dir, path)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer, which must count the processes that were started."""
        trainer = super().instantiate_trainer(**kwargs)
        refuse_miscounted(trainer)
        return trainer

    def before_test(self) -> None:
        """Refuses to measure a network that was never trained; tells an evaluation its command line."""
        if isinstance(self.model, LatentModule) and self.config[self.subcommand].ckpt_path is None:
            name = type(self.model).__name__
            raise UserError(f"lcg {self.subcommand}: {name} has no trained weights; give --ckpt_path=FILE of `lcg fit`")
        if isinstance(self.model, Evaluation) and self.given is not None:
            self.model.command = ["lcg", *self.given]

    before_validate = before_test


class Prepared(CLI):
    """Builds trainer, model and data, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


class Parsed(Prepared):
    """Reads the configuration, and builds nothing."""

    def instantiate_classes(self) -> None:
        """Leaves the configuration as it is."""


def run(args: Sequence[str], kind: type[CLI] = CLI) -> CLI:
    """Runs a Lightning subcommand as from the command line; returns the CLI with its trainer, model and data."""
    stage = args[0]
    return kind(
        stage,
        model_class=LightningModule,
        datamodule_class=LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults={"enable_model_summary": False},  # it reports 0 FLOPs for networks that are called in parts
        parser_kwargs={
            **_RAISING,
            "prog": "lcg",
            stage: {"usage": listing(stage).replace("%", "%%"), "description": None, **_RAISING},
        },
        load_from_checkpoint_support=stage == "fit",  # the others write no checkpoint
        args=list(args),
    )

"""The command ``lcg``: Lightning's fit, validate and test from YAML, and the commands of our own."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import lcg_lightning.data.datamodule
import lcg_lightning.evaluation.module
import lcg_lightning.evaluation.tasks
import lcg_lightning.methods.arithmetic
import lcg_lightning.methods.lcg
import lcg_lightning.methods.real
import lcg_lightning.methods.unguided
import lcg_lightning.models.classifier
import lcg_lightning.models.prior
import lcg_lightning.recipes.zoo  # noqa: F401 - named bare in YAML
from lcg_lightning.commands import edit, encode, export_zoo, generator, leaderboard, render, sample
from lcg_lightning.errors import UserError

TRAINER_COMMANDS = {
    "fit": "Train the module of a configuration.",
    "validate": "Run a module's validation.",
    "test": "Evaluate a method on a task, or test a prior or classifier.",
}
COMMANDS: dict[str, Any] = {
    "render": render.render,
    "generator": {"info": generator.info, "convert": generator.convert},
    "encode": encode.encode,
    "sample": sample.sample,
    "edit": edit.edit,
    "leaderboard": leaderboard.leaderboard,
    "export-zoo": export_zoo.export_zoo,
}
BY_NAME = ("encode",)
"""Commands without positional arguments: a class among them could not be described by options."""
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
        self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)


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


def run(args: Sequence[str]) -> CLI:
    """One of Lightning's subcommands, as from the command line; returns its trainer, model and data."""
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    return CLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={**_RAISING, **dict.fromkeys(TRAINER_COMMANDS, _RAISING)},
        args=list(args),
    )


def usage() -> str:
    """What ``lcg --help`` prints."""
    lines = [f"  {name:<12} {text}" for name, text in TRAINER_COMMANDS.items()]
    for name, command in COMMANDS.items():
        functions = command.values() if isinstance(command, dict) else [command]
        lines.append(f"  {name:<12} {' '.join((f.__doc__ or '').splitlines()[0] for f in functions)}")
    return "\n".join(["usage: lcg COMMAND [options]", "", *lines, "", "lcg COMMAND --help tells more."])


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; an error of the user's is one line on standard error and exit status 2.

    LCG_TRACEBACK=1 shows the traceback too.
    """
    command, *rest = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        if command in COMMANDS:
            positional = command not in BY_NAME
            prog = f"lcg {command}"
            jsonargparse.auto_cli(COMMANDS[command], args=rest, as_positional=positional, prog=prog, **_RAISING)
        elif command in TRAINER_COMMANDS:
            run([command, *rest])
        elif command in ("-h", "--help"):
            print(usage())
        else:
            raise UserError(f"no command {command!r}; lcg --help lists them")
    except jsonargparse.ArgumentError as error:
        if os.environ.get("LCG_TRACEBACK"):
            raise
        text = users_mistake(error) or " ".join(str(error).split())
        print(f"lcg: error: {text} (lcg {command} --help lists the options)", file=sys.stderr)
        return 2
    except Exception as error:
        mistake = users_mistake(error)
        if mistake is None or os.environ.get("LCG_TRACEBACK"):
            raise
        print(f"lcg: error: {mistake}", file=sys.stderr)
        return 2
    return 0


def users_mistake(error: BaseException | None) -> UserError | None:
    """The user's error behind another one: configuration parsers and worker processes wrap what they catch."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error

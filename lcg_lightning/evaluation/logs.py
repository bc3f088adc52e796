"""Sends an evaluation's identity, figures and pictures to the configured loggers."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import WandbLogger

from lcg_lightning.evaluation.estimates import Estimate
from lcg_lightning.evaluation.records import Record, identity


def log_identity(loggers: Iterable[Logger], record: Record) -> None:
    """Logs a run's name and its record without figures, before any computation.

    A W&B run is named after method, scale, task, number of samples and seed, unless the configuration names it.
    """
    measured = ("nfe", "seconds", "memory", "failure")
    about = {k: v for k, v in identity(record).items() if k not in measured} | {"scale": record.scale}
    for logger in loggers:
        logger.log_hyperparams(about)
        if isinstance(logger, WandbLogger) and not logger._wandb_init.get("name"):
            logger.experiment.name = run_name(record)


def run_name(record: Record) -> str:
    """A descriptive name, such as ``lcg scale 2 on editing, n 300, seed 0``."""
    scale = "" if record.scale is None else f" scale {record.scale:g}"
    return f"{record.method}{scale} on {record.task}, n {record.n}, seed {record.seed}"


def log_figures(loggers: Iterable[Logger], metrics: Mapping[str, Estimate], picture: Path) -> None:
    """Logs interval bounds as scalars, and a table and the picture to W&B, which alone among loggers can show them."""
    ends: dict[str, float] = {}
    for name, estimate in metrics.items():
        ends |= {f"{name}/{end}": x for end, x in (("low", estimate.low), ("high", estimate.high)) if x == x}
    rows: list[list[Any]] = [[name, *estimate] for name, estimate in metrics.items()]
    for logger in loggers:
        logger.log_metrics(ends)
        if isinstance(logger, WandbLogger):
            logger.log_table("record", columns=["metric", "value", "low", "high"], data=rows)
            logger.log_image("samples", [str(picture)])

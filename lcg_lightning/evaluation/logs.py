"""Identity, figures and pictures of an evaluation for whichever loggers are configured."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import WandbLogger

from lcg_lightning.evaluation.estimates import Estimate
from lcg_lightning.evaluation.records import Record, identity


def log_identity(loggers: Iterable[Logger], record: Record) -> None:
    """Tells loggers what a run is before it computes anything: the record without its figures, and a name.

    A W&B run is named by method, scale, task, number of samples and seed, unless the configuration names it.
    """
    about = {k: v for k, v in identity(record).items() if k not in ("nfe", "seconds")} | {"scale": record.scale}
    for logger in loggers:
        logger.log_hyperparams(about)
        if isinstance(logger, WandbLogger) and not logger._wandb_init.get("name"):
            logger.experiment.name = run_name(record)


def run_name(record: Record) -> str:
    """A telling name, such as ``lcg scale 2 on editing, n 300, seed 0``."""
    scale = "" if record.scale is None else f" scale {record.scale:g}"
    return f"{record.method}{scale} on {record.task}, n {record.n}, seed {record.seed}"


def log_figures(loggers: Iterable[Logger], metrics: Mapping[str, Estimate], picture: Path) -> None:
    """Logs interval ends as scalars, and shows table and picture in W&B; other loggers have no place for these."""
    ends: dict[str, float] = {}
    for name, estimate in metrics.items():
        ends |= {f"{name}/{end}": x for end, x in (("low", estimate.low), ("high", estimate.high)) if x == x}
    rows: list[list[Any]] = [[name, *estimate] for name, estimate in metrics.items()]
    for logger in loggers:
        logger.log_metrics(ends)
        if isinstance(logger, WandbLogger):
            logger.log_table("record", columns=["metric", "value", "low", "high"], data=rows)
            logger.log_image("samples", [str(picture)])

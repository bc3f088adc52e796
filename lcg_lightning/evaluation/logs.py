"""Pictures and tables for whichever logger is configured."""

from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import WandbLogger


def log_picture(logger: Logger, key: str, path: Path) -> None:
    """Shows a picture file in W&B; other loggers have no place for it."""
    if isinstance(logger, WandbLogger):
        logger.log_image(key, [str(path)])


def log_table(logger: Logger, key: str, rows: list[list[Any]]) -> None:
    """Shows metric rows (name, value, low, high) as a W&B table; other loggers have no place for it."""
    if isinstance(logger, WandbLogger):
        logger.log_table(key, columns=["metric", "value", "low", "high"], data=rows)

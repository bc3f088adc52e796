"""Silences irrelevant messages from Lightning and its libraries."""

import logging
import warnings

from lcg_lightning.processes import is_first

_NOISE = (
    r"LightningCLI's args parameter is intended",
    r"No seed found, seed set to",
    r"Starting from v1\.9\.0, `tensorboardX` has been removed",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"Checkpoint directory .* exists and is not empty",
    r"It is recommended to use `self\.log\(.*sync_dist=True\)` when logging on epoch level",
    r"The '\w+_dataloader' does not have many workers",
)
"""Regular expressions for the beginnings of irrelevant warnings."""


def quiet() -> None:
    """Keeps Lightning's warnings and errors, and silences its notes, tips and advertisements.

    Call this after importing Lightning, which sets its own log levels.
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    if not is_first():  # one warning is enough
        warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

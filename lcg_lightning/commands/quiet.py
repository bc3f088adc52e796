"""What Lightning and its libraries say that nobody needs: one list, by message."""

import logging
import os
import warnings

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
"""Beginnings of warnings, as regular expressions."""


def quiet() -> None:
    """Leaves warnings and errors of Lightning on the console, and none of its notes, tips and advertisements.

    Call it after Lightning is imported, which sets its own levels.
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # the first of several processes warns for all
        warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

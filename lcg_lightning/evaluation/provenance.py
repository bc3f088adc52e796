"""Provenance and cost of figures: package versions, the commit of the code, memory and time."""

import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

_PACKAGES = ("lcg-lightning", "torch", "lightning", "torchmetrics", "numpy", "scipy", "clean-fid")


def collect_versions(device: torch.device, precision: str) -> dict[str, str]:
    """Versions of Python and the numerical packages, the device's name, and the trainer's precision."""
    return {
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "precision": precision,
        **{name: version(name) for name in _PACKAGES},
    }


def peak_memory(device: torch.device) -> tuple[str, int]:
    """This process's peak memory in bytes, and what it is of; see :class:`~lcg_lightning.evaluation.records.Record`."""
    if device.type == "cuda":
        return "cuda", torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in KiB elsewhere
    return "resident", peak if sys.platform == "darwin" else 1024 * peak


def clock(device: torch.device) -> float:
    """Seconds, after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with ``-dirty`` if changed; None outside a checkout."""
    file = Path(__file__)
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True, capture_output=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

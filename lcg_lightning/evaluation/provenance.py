"""Provenance of figures: package versions and the commit of the code."""

import platform
import subprocess
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

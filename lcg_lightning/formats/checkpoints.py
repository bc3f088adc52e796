"""Reads torch checkpoints without running code, and loads complete sets of weights into networks."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.files import require_file

_LISTED = 5  # most keys that a message names


class _Record:
    """Stand-in for a class that Lightning 1.4 used as a key in its checkpoints."""


_RECORDS = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a torch.save file, read with ``weights_only``.

    Raises:
        UserError: the file refers to anything other than tensors and plain data, is damaged, or holds no dict.
    """
    require_file(path, "a checkpoint file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise ValueError(f"checksum of {bad}")
        data = _load(path)
    except Exception as error:  # a damaged archive can fail in any way
        refused = re.search(r"GLOBAL ([\w.]+) w", str(error))
        if refused:
            raise UserError(f"{path}: refused to load {refused[1]}; do not trust this checkpoint") from None
        reason = " ".join(str(error).rsplit("WeightsUnpickler error:", 1)[-1].split())[:150] or type(error).__name__
        raise UserError(f"{path}: a damaged checkpoint ({reason}); fetch it again") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds a {type(data).__name__}, not a checkpoint; give the file that training wrote")
    return data


def peek(path: Path) -> dict[str, Any]:
    """Like :func:`read_checkpoint`, but without reading tensors or checking the file; empty if unreadable."""
    try:
        require_file(path, "a checkpoint file")
        data = _load(path, mmap=True)
    except Exception:  # read_checkpoint reports the error
        return {}
    return data if isinstance(data, dict) else {}


def _load(path: Path, mmap: bool = False) -> Any:
    with torch.serialization.safe_globals([(_Record, name) for name in _RECORDS]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads a state dict with exactly matching keys and shapes into a network, which may be on the meta device.

    Raises:
        UserError: the state does not match; see :func:`check_weights`.
    """
    check_weights(network, state, path)
    single = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    network.load_state_dict(single, assign=True)


def check_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Check that a state dict has exactly a network's keys and shapes, and finite numbers.

    Raises:
        UserError: keys are missing or extra, shapes differ, or a number is not finite; at most five keys are named.
    """
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    problems = {
        "lacks": sorted(own.keys() - state.keys()),
        "has the unknown": sorted(state.keys() - own.keys()),
        "has another shape of": [k for k in own if k in state and tuple(state[k].shape) != own[k]],
    }
    kind = type(network).__name__
    for what, keys in problems.items():
        if keys:
            raise UserError(f"{path}: {what} {_listed(keys)}, so it holds no {kind} of that size")
    if keys := sorted(key for key, value in state.items() if not value.isfinite().all()):
        raise UserError(f"{path}: {_listed(keys)} of its {kind} is not finite; train or fetch it again")


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more

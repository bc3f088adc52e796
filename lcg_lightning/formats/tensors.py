"""Networks in safetensors files: weights, with the configuration that rebuilds the networks as metadata."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic, require_file


def save(path: Path, networks: Mapping[str, nn.Module], config: Mapping[str, Any], half: bool = False) -> Path:
    """Writes networks with the configuration that rebuilds them.

    Args:
        path: the file to write.
        networks: networks by state-dict prefix.
        config: plain data; the constructor arguments of each network under its prefix.
        half: store weights, but not normalization statistics, in half precision.
    """
    state = {f"{prefix}.{k}": v for prefix, network in networks.items() for k, v in network.state_dict().items()}
    if half:
        state = {k: v if "running" in k or not v.is_floating_point() else v.half() for k, v in state.items()}
    with atomic(path) as temporary:
        save_file({k: v.contiguous() for k, v in state.items()}, temporary, metadata={"config": json.dumps(config)})
    return path


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict, in single precision, and configuration.

    Raises:
        UserError: the file cannot be read, is damaged, or was not written by :func:`save`.
    """
    with _opened(path) as (file, config):
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, config


def read_config(path: Path) -> dict[str, Any]:
    """The configuration without the weights.

    Raises:
        UserError: as for :func:`read`.
    """
    with _opened(path) as (_, config):
        return config


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An open file and its configuration."""
    require_file(path, "a file written by `lcg generator convert`")
    try:
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
            if not isinstance(config, dict):
                raise ValueError(f"its configuration is {config!r}")
            yield file, config
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a file written by `lcg generator convert` ({reason})") from None


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The state dict of one network in a file."""
    return {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(f"{prefix}.")}

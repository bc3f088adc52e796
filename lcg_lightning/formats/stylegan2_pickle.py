"""Reads stylegan2-ada-pytorch network pickles without executing any of their content.

Such a pickle carries the Python source of its networks and asks the reader to run it. This reader keeps only the
recorded state: tensors and constructor arguments. It refuses any other global in the file, and names it.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.formats.checkpoints import load_weights
from lcg_lightning.formats.pickles import Names, plain_names, read_pickle
from lcg_lightning.networks.stylegan2 import StyleGAN2

_ANY = object()
_OPTIONS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    # part: (options that our network also has, under its own names; options that must have one fixed value)
    "synthesis_kwargs": (
        {"channel_base": "channel_base", "channel_max": "channel_max", "conv_clamp": "conv_clamp"},
        {
            **{"architecture": "skip", "activation": "lrelu", "resample_filter": [1, 3, 3, 1], "use_noise": True},
            **{"num_fp16_res": _ANY, "fp16_channels_last": _ANY},  # these only concern half precision on a GPU
        },
    ),
    "mapping_kwargs": (
        {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"},
        {"embed_features": None, "layer_features": None, "activation": "lrelu", "w_avg_beta": _ANY},
    ),
}

NetworkState = dict[str, Any]
"""The record of one persistent object: its class name under ``class_name``, its ``__dict__`` under ``state``."""


def _load_storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


def _record(meta: NetworkState) -> NetworkState:
    return {"class_name": meta["class_name"], "state": meta["state"]}


def _names() -> Names:
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): lambda meta: _record(meta),
        ("torch.storage", "_load_from_bytes"): lambda data: _load_storage(data),
        ("torch._utils", "_rebuild_tensor"): lambda *a: torch._utils._rebuild_tensor(*a),  # type: ignore[no-untyped-call]
        ("torch._utils", "_rebuild_tensor_v2"): lambda *a: torch._utils._rebuild_tensor_v2(*a),  # type: ignore[no-untyped-call]
        ("torch._utils", "_rebuild_parameter"): lambda *a: torch._utils._rebuild_parameter(*a),  # type: ignore[no-untyped-call]
    }
    for module in ("dnnlib", "dnnlib.util"):
        names[module, "EasyDict"] = dict
    return {**plain_names(), **names}


def read_network(path: Path) -> NetworkState:
    """The recorded ``G_ema`` of a network pickle.

    Raises:
        UserError: the file refers to any other global, is cut short, or has no G_ema.
    """
    data = read_pickle(path, _names(), "a StyleGAN2 network pickle")
    if not (isinstance(data, dict) and isinstance(data.get("G_ema"), dict)):
        raise UserError(f"{path}: no generator G_ema in it; give a stylegan2-ada-pytorch network-snapshot.pkl")
    network: NetworkState = data["G_ema"]
    return network


def state_dict(network: NetworkState, prefix: str = "") -> dict[str, Tensor]:
    """Flat state dict of a recorded module and its submodules."""
    state = network["state"]
    out: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        out |= {prefix + k: v.detach() for k, v in state[kind].items() if v is not None}
    for name, child in state["_modules"].items():
        out |= state_dict(child, f"{prefix}{name}.")
    return out


def load_pickle(path: Path) -> tuple[StyleGAN2, dict[str, Any]]:
    """A StyleGAN2 with the weights of a network pickle's G_ema, and the arguments that rebuild it.

    Raises:
        UserError: the file is foreign, damaged or truncated, or the network has another architecture.
    """
    recorded = read_network(path)
    try:
        arguments = _arguments(recorded["state"]["_init_kwargs"])
        weights = state_dict(recorded)
        with torch.device("meta"):
            network = StyleGAN2(**arguments)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a network of the skip architecture of StyleGAN2 ({reason})") from None
    load_weights(network, weights, path)
    return network, arguments


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``StyleGAN2`` from those of the official ``Generator``."""
    arguments = {key: given[key] for key in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")}
    if arguments["img_channels"] != 3:
        raise ValueError(f"img_channels is {arguments['img_channels']}, only colour images can be drawn")
    for part, (names, same) in _OPTIONS.items():
        for key, value in given.get(part, {}).items():
            if key in names:
                arguments[names[key]] = value
            elif key not in same or (same[key] is not _ANY and value != same[key]):
                raise ValueError(f"{part} has {key} {value!r}")
    return arguments

"""Reads the checkpoints of phizaz/diffae: autoencoder, latent prior and linear classifier."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.formats.checkpoints import load_weights, read_checkpoint
from lcg_lightning.networks.diffae import RESIDUAL_BLOCKS, DiffAE

State = dict[str, Tensor]

_FIXED: dict[str, Any] = {  # the values in all published models
    "net_num_res_blocks": RESIDUAL_BLOCKS,
    "net_enc_num_res_blocks": RESIDUAL_BLOCKS,
    "net_num_input_res_blocks": None,
    "net_enc_attn": None,
    "net_beatgans_attn_head": 1,
    "net_beatgans_resnet_two_cond": True,
    "net_beatgans_resnet_cond_channels": None,
    "net_resblock_updown": True,
    "net_enc_pool": "adaptivenonzero",
    "net_autoenc_stochastic": False,
    "autoenc_mid_attn": True,
    "beatgans_rescale_timesteps": False,
    "beta_scheduler": "linear",
}
_FIXED_LATENT: dict[str, Any] = {
    "net_latent_condition_bias": 1,
    "net_latent_num_time_layers": 2,
    "net_latent_time_emb_channels": 64,
    "net_latent_time_last_act": False,
    "net_latent_use_norm": True,
    "latent_rescale_timesteps": False,
    "latent_clip_sample": False,
}
_SCHEDULES = {"const0.008": "constant", "linear": "linear"}


class LatentNet(NamedTuple):
    """A checkpoint's latent prior, converted to our ``LatentMLP``."""

    state: State
    arguments: dict[str, int]
    schedule: str
    num_steps: int
    mean: Tensor
    """(D,) mean used to standardize its latents."""
    std: Tensor
    """(D,)"""


class LinearClassifier(NamedTuple):
    """A checkpoint's attribute classifier: logits = weight @ standardized z_sem + bias."""

    weight: Tensor
    """(40, D), in the order of CelebA's attributes."""
    bias: Tensor
    """(40,)"""
    mean: Tensor
    """(D,)"""
    std: Tensor
    """(D,)"""


def is_diffae(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint's content is that of a DiffAE checkpoint."""
    config = checkpoint.get("hyper_parameters")
    return "state_dict" in checkpoint and isinstance(config, dict) and "net_ch_mult" in config


class Autoencoder(NamedTuple):
    """Encoder and decoder of a checkpoint."""

    network: DiffAE
    arguments: dict[str, Any]
    """Arguments of ``DiffAE``."""
    num_steps: int
    """T of the decoder's linear schedule."""
    statistics: tuple[Tensor, Tensor] | None
    """Mean and standard deviation (D,) float64 of z_sem, if the checkpoint has them."""


def load_autoencoder(path: Path) -> Autoencoder:
    """The autoencoder of an autoencoder or latent checkpoint, with its averaged weights.

    Raises:
        UserError: a damaged file, a classifier's checkpoint, or a model of another architecture.
    """
    state, config = _read(path)
    if "classifier.weight" in state:
        raise UserError(f"{path}: holds a linear classifier, no generator; give it to the method LatentArithmetic")
    _check(config, _FIXED, path)
    try:
        num_steps = int(config["T"])
        arguments = {
            "image_size": config["img_size"],
            "channels": config["net_ch"],
            "mult": list(config["net_ch_mult"]),
            "encoder_mult": list(config["net_enc_channel_mult"]),
            "latent_dim": config["style_ch"],
            "attention": list(config["net_attn"]),
        }
        with torch.device("meta"):
            network = DiffAE(**arguments)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path}: its hyper_parameters describe no model of a known size ({error!r})") from None
    weights = {k: v for k, v in _part(state, "ema_model.").items() if not k.startswith("latent_net.")}
    load_weights(network, weights, path)
    return Autoencoder(network, arguments, num_steps, _statistics(state))


def load_latent_net(path: Path) -> LatentNet:
    """The latent prior of a latent checkpoint, with its averaged weights.

    Raises:
        UserError: a damaged file, a checkpoint without a latent prior, or one of another architecture.
    """
    state, config = _read(path)
    found, statistics = _part(state, "ema_model.latent_net."), _statistics(state)
    if not found or statistics is None:
        raise UserError(f"{path}: holds no latent prior; give the checkpoint of the *_autoenc_latent model")
    try:
        layers, width = int(config["net_latent_layers"]), int(config["style_ch"])
        arguments = {"latent_dim": width, "hidden": int(config["net_latent_num_hid_channels"]), "layers": layers}
        schedule, num_steps = _SCHEDULES[config["latent_beta_scheduler"]], int(config["T"])
        renamed = rename_latent_net(found, layers)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: holds no latent prior of a known size ({error!r})") from None
    _check(config, _FIXED_LATENT | {"net_latent_skip_layers": list(range(1, layers))}, path)
    return LatentNet(renamed, arguments | {"time_hidden": width}, schedule, num_steps, *statistics)


def rename_latent_net(state: State, layers: int) -> State:
    """Renames a published latent net's state dict to match ``LatentMLP``, which holds all scales in one matrix.

    Unknown keys keep their names, so that loading the state refuses them.
    """
    hidden = [f"layers.{i}." for i in range(layers - 1)]
    out = {f"time_embed.{i}.{kind}": state[f"time_embed.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        out[f"time_scale.{kind}"] = torch.cat([state[f"{name}linear_emb.{kind}"] for name in hidden])
        for i, name in enumerate(hidden):
            out[f"linears.{i}.{kind}"] = state[f"{name}linear.{kind}"]
            out[f"norms.{i}.{kind}"] = state[f"{name}norm.{kind}"]
        out[f"output.{kind}"] = state[f"layers.{layers - 1}.linear.{kind}"]
    parts = ("linear", "norm", "linear_emb", "cond_layers.1")  # the last duplicates linear_emb
    own = {f"{name}{part}.{kind}" for name in hidden for part in parts for kind in ("weight", "bias")}
    own |= {f"layers.{layers - 1}.linear.{kind}" for kind in ("weight", "bias")}
    return out | {key: value for key, value in state.items() if key not in own and key not in out}


def load_linear_classifier(path: Path) -> LinearClassifier:
    """The classifier in a classifier checkpoint: the trained weights, not the averaged ones, as in its authors' edits.

    Raises:
        UserError: a damaged file, or a checkpoint without a classifier.
    """
    state, _ = _read(path)
    statistics = _statistics(state)
    if not {"classifier.weight", "classifier.bias"} <= state.keys() or statistics is None:
        raise UserError(f"{path}: holds no classifier; give the checkpoint of the *_autoenc_cls model")
    return LinearClassifier(state["classifier.weight"], state["classifier.bias"], *statistics)


def _read(path: Path) -> tuple[State, dict[str, Any]]:
    checkpoint = read_checkpoint(path)
    if not is_diffae(checkpoint):
        raise UserError(f"{path}: not a checkpoint of DiffAE (no hyper_parameters of its networks)")
    state = checkpoint["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: its state_dict holds something other than tensors; fetch it again")
    return state, checkpoint["hyper_parameters"]


def _part(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _statistics(state: State) -> tuple[Tensor, Tensor] | None:
    if not {"conds_mean", "conds_std"} <= state.keys():
        return None
    return state["conds_mean"].flatten().double(), state["conds_std"].flatten().double()


def _check(config: dict[str, Any], fixed: dict[str, Any], path: Path) -> None:
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise UserError(
                f"{path}: {key} is {config[key]!r}; only models with {value!r}, as published, can be loaded"
            )

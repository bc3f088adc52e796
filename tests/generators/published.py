"""Writes small files of the true structure of published networks."""

import sys
import types

import torch

from lcg_lightning.generators.diffae import DiffAE
from lcg_lightning.networks import LatentMLP

SIZE, WIDTH = 16, 8
HYPER_PARAMETERS = {
    "img_size": SIZE,
    "net_ch": 8,
    "net_ch_mult": (1, 2),
    "net_enc_channel_mult": (1, 2, 2),
    "style_ch": WIDTH,
    "net_attn": (8,),
    "net_num_res_blocks": 2,
    "net_enc_num_res_blocks": 2,
    "net_beatgans_attn_head": 1,
    "beta_scheduler": "linear",
    "T": 1000,
    "net_latent_layers": 4,
    "net_latent_num_hid_channels": 16,
    "net_latent_skip_layers": [1, 2, 3],
    "net_latent_condition_bias": 1,
    "net_latent_num_time_layers": 2,
    "net_latent_time_emb_channels": 64,
    "net_latent_use_norm": True,
    "latent_beta_scheduler": "const0.008",
}


def diffae_state(seed=0):
    """State dict of an autoencoder checkpoint: trained and averaged weights under their two prefixes."""
    state = {}
    for prefix in ("model.", "ema_model."):
        torch.manual_seed(seed := seed + 1)
        network = DiffAE(SIZE, 8, (1, 2), (1, 2, 2), WIDTH, (8,))
        state |= {prefix + key: value for key, value in network.state_dict().items()}
    return {**state, "x_T": torch.randn(2, 3, SIZE, SIZE)}


def latent_net_state(seed=0):
    """State dict of a latent net under its published names, the scale layers stored twice."""
    torch.manual_seed(seed)
    net, state = LatentMLP(WIDTH, 16, 4, time_hidden=WIDTH).state_dict(), {}
    for kind in ("weight", "bias"):
        for i in (0, 2):
            state[f"time_embed.{i}.{kind}"] = net[f"time_embed.{i}.{kind}"]
        for i, scale in enumerate(net[f"time_scale.{kind}"].chunk(3)):
            state[f"layers.{i}.linear.{kind}"] = net[f"linears.{i}.{kind}"]
            state[f"layers.{i}.norm.{kind}"] = net[f"norms.{i}.{kind}"]
            state[f"layers.{i}.linear_emb.{kind}"] = state[f"layers.{i}.cond_layers.1.{kind}"] = scale
        state[f"layers.3.linear.{kind}"] = net[f"output.{kind}"]
    return state


def diffae_checkpoint(path, kind="autoenc", change=None):
    """Writes an autoenc, latent or cls checkpoint in the layout of Lightning 1.4."""
    state = {} if kind == "cls" else diffae_state()
    if kind == "latent":
        for prefix, seed in {"model.latent_net.": 1, "ema_model.latent_net.": 2}.items():
            state |= {prefix + key: value for key, value in latent_net_state(seed).items()}
    if kind != "autoenc":
        torch.manual_seed(3)
        state |= {"conds_mean": torch.randn(1, WIDTH), "conds_std": torch.rand(1, WIDTH) + 0.5}
    if kind == "cls":
        for prefix in ("classifier.", "ema_classifier."):
            state |= {f"{prefix}weight": torch.randn(40, WIDTH), f"{prefix}bias": torch.randn(40)}
    checkpoint = {
        "epoch": 1,
        "pytorch-lightning_version": "1.4.5",
        "callbacks": {_model_checkpoint(): {"monitor": None}},
        "hyper_parameters": dict(HYPER_PARAMETERS),
        "state_dict": state,
    }
    if change:
        change(checkpoint)
    name = "pytorch_lightning.callbacks.model_checkpoint"
    saved = sys.modules.get(name)
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].ModelCheckpoint = _model_checkpoint()
    try:
        torch.save(checkpoint, path)
    finally:
        sys.modules.pop(name) if saved is None else sys.modules.update({name: saved})
    return path


def _model_checkpoint(made={}):  # noqa: B006 - one class for the whole session
    return made.setdefault(
        0, type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    )

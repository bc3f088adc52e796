"""Writes small files of the true structure of published networks."""

import pickle
import sys
import types
from contextlib import contextmanager

import torch

from lcg_lightning.networks.diffae import DiffAE
from lcg_lightning.networks.latent import LatentMLP
from lcg_lightning.networks.stylegan2 import StyleGAN2

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
        "callbacks": {ModelCheckpoint: {"monitor": None}},
        "hyper_parameters": dict(HYPER_PARAMETERS),
        "state_dict": state,
    }
    if change:
        change(checkpoint)
    with _modules({"pytorch_lightning.callbacks.model_checkpoint": ModelCheckpoint}):
        torch.save(checkpoint, path)
    return path


class ModelCheckpoint:
    """A key of the callbacks in Lightning 1.4."""


class EasyDict(dict):
    """What the official training script keeps its keyword arguments in."""


class Recorded:
    """Pickles as a call of the official reconstruction function, which is not there when the file is read."""

    def __init__(self, meta):
        self.meta = meta

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta):
    raise AssertionError("nothing in the file may run")


def _persistent(module, arguments=None):
    """A module as torch_utils.persistence writes it, recursively."""
    state = {
        "_parameters": dict(module._parameters),
        "_buffers": dict(module._buffers),
        "_modules": {name: _persistent(child) for name, child in module._modules.items()},
        "_non_persistent_buffers_set": set(),
        "_init_args": (),
        "_init_kwargs": arguments or {},
    }
    return Recorded({"type": "class", "module_src": "raise SystemExit", "class_name": "Generator", "state": state})


def stylegan2_pickle(path, size=8, classes=0, protocol=4, clamp=None, change=None):
    """Writes a network-snapshot.pkl; returns its network."""
    torch.manual_seed(0)
    network = StyleGAN2(8, classes, 16, size, channel_base=64, channel_max=8, conv_clamp=clamp)
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.1)
    torch.nn.init.normal_(network.mapping.w_avg)
    arguments = {"z_dim": 8, "c_dim": classes, "w_dim": 16, "img_resolution": size, "img_channels": 3}
    synthesis = EasyDict(channel_base=64, channel_max=8, num_fp16_res=0, conv_clamp=clamp)
    arguments |= {"synthesis_kwargs": synthesis, "mapping_kwargs": {}} | (change or {})
    with _modules({"torch_utils.persistence": _reconstruct_persistent_obj, "dnnlib.util": EasyDict}):
        path.write_bytes(pickle.dumps({"G": None, "G_ema": _persistent(network, arguments)}, protocol=protocol))
    return network.eval()


@contextmanager
def _modules(things):
    """Makes classes and functions of this file pickle under the names of their published modules."""
    saved = dict(sys.modules)
    own = {thing: thing.__module__ for thing in things.values()}
    for module, thing in things.items():
        parts = module.split(".")
        for i in range(len(parts)):
            sys.modules[".".join(parts[: i + 1])] = types.ModuleType(parts[i])
        setattr(sys.modules[module], thing.__name__, thing)
        thing.__module__ = module
    try:
        yield
    finally:
        for thing, module in own.items():
            thing.__module__ = module
        for name in set(sys.modules) - set(saved):
            del sys.modules[name]
        sys.modules.update(saved)

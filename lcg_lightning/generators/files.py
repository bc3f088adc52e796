"""Generators from files: detection of the file's kind, and one loader per kind of generator."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.files import require_file
from lcg_lightning.formats import tensors
from lcg_lightning.formats.checkpoints import load_weights
from lcg_lightning.formats.diffae_checkpoint import load_autoencoder
from lcg_lightning.formats.preprocess import load_encoder
from lcg_lightning.formats.programs import load_program, program_kind
from lcg_lightning.formats.stylegan2_pickle import load_pickle
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.diffae import DiffAEGenerator
from lcg_lightning.generators.exported import ExportedGenerator
from lcg_lightning.generators.stylegan2 import StyleGAN2Generator
from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.networks.diffae import DiffAE
from lcg_lightning.networks.stylegan2 import StyleGAN2

Kind = Literal["StyleGAN2 pickle", "torch checkpoint", "safetensors", "program"]
Encoder = str | dict[str, Any] | None
"""An encoder's description; see :func:`lcg_lightning.formats.preprocess.load_encoder`."""

_LEGACY_CHECKPOINT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before zip files


def kind_of(path: Path) -> Kind:
    """The kind of a file, determined by its content.

    Raises:
        UserError: the file cannot be read, or is not in any format that a generator can have.
    """
    require_file(path, "a generator's file")
    with path.open("rb") as file:
        head = file.read(64)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if head.startswith(_LEGACY_CHECKPOINT):
        return "torch checkpoint"
    if head.startswith(b"\x80"):
        return "StyleGAN2 pickle"
    if program_kind(path) is not None:
        return "program"
    if zipfile.is_zipfile(path) or head.startswith(b"PK"):
        return "torch checkpoint"
    raise UserError(
        f"{path}: not a generator; give a StyleGAN2 .pkl, a DiffAE .ckpt, a .safetensors of `lcg generator convert`, "
        "or a TorchScript, torch.export or ONNX program"
    )


def loader_of(path: Path) -> Callable[..., Generator]:
    """The function in this module that loads a file; its further arguments are that generator's options.

    Raises:
        UserError: the file holds no generator.
    """
    kind = kind_of(path)
    if kind == "safetensors":
        config = tensors.read_config(path)
        if config.get("kind") not in ("stylegan2", "diffae"):
            raise UserError(f"{path}: holds no generator; give a file written by `lcg generator convert`")
        return stylegan2 if config["kind"] == "stylegan2" else diffae
    loaders: dict[Kind, Callable[..., Generator]]
    loaders = {"StyleGAN2 pickle": stylegan2, "torch checkpoint": diffae, "program": program}
    return loaders[kind]


def stylegan2(path: Path, encoder: Encoder = None, **options: Any) -> StyleGAN2Generator:
    """A StyleGAN2 from a stylegan2-ada-pytorch pickle or a safetensors file.

    Args:
        path: the file.
        encoder: encoder to use instead of the one in the file.
        options: further arguments of :class:`StyleGAN2Generator`.

    Raises:
        UserError: a foreign or damaged file, or options that do not fit the network.
    """
    own: nn.Module | None = None
    if kind_of(path) == "safetensors":
        read = _read(path, {"network": StyleGAN2, "encoder": ConvNet})
        network, own = read.networks["network"], read.networks.get("encoder")
    else:
        network, _ = load_pickle(path)
    if encoder is not None:
        own = load_encoder(encoder)
    return StyleGAN2Generator(network, own, **options)


def diffae(path: Path, **options: Any) -> DiffAEGenerator:
    """A Diffusion Autoencoder from a published checkpoint (autoencoder or latent) or a safetensors file.

    Args:
        path: the file.
        options: arguments of :class:`DiffAEGenerator` that the file does not fix.

    Raises:
        UserError: a foreign or damaged file, or options that do not fit the network.
    """
    statistics: tuple[Tensor, Tensor] | None
    if kind_of(path) == "safetensors":
        read = _read(path, {"network": DiffAE})
        network, num_steps = read.networks["network"], read.config["num_steps"]
        statistics = None
        if read.config["statistics"] is not None:
            mean, std = (torch.tensor(x, dtype=torch.float64) for x in read.config["statistics"])
            statistics = mean, std
    else:
        network, _, num_steps, statistics = load_autoencoder(path)
    return DiffAEGenerator(network, num_steps, statistics, **options)


def program(
    path: Path, latent_shape: tuple[int, ...] = (), encoder: Encoder = None, trusted: bool = False, **options: Any
) -> ExportedGenerator:
    """A generator from a TorchScript, torch.export or ONNX file.

    Args:
        path: the file.
        latent_shape: shape of one latent, such as [512].
        encoder: encoder from images to its latents.
        trusted: the file may run code; see :func:`load_program`.
        options: further arguments of :class:`ExportedGenerator`.

    Raises:
        UserError: a foreign or damaged file, or one that does not map such latents to images.
    """
    if not latent_shape or min(latent_shape) < 1:
        raise UserError(
            f"{path}: latent_shape is {list(latent_shape)}; a program does not specify it; give, for example, [512]"
        )
    own = None if encoder is None else load_encoder(encoder)
    return ExportedGenerator(load_program(path, (2, *latent_shape), trusted), latent_shape, encoder=own, **options)


class _Read(NamedTuple):
    networks: dict[str, Any]
    config: dict[str, Any]


def _read(path: Path, kinds: dict[str, type[nn.Module]]) -> _Read:
    """The networks of these kinds in a safetensors file, and its configuration."""
    state, config = tensors.read(path)
    networks: dict[str, nn.Module] = {}
    try:
        for name in kinds.keys() & config.keys():
            with torch.device("meta"):
                networks[name] = kinds[name](**config[name])
            load_weights(networks[name], tensors.part(state, name), path)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: not a generator file written by `lcg generator convert` ({error!r})") from None
    return _Read(networks, config)

"""One entry to every generator: finds out what a file is and loads it."""

import inspect
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats import tensors
from lcg_lightning.formats.checkpoints import load_weights
from lcg_lightning.formats.diffae_checkpoint import load_autoencoder
from lcg_lightning.formats.preprocess import load_image_program
from lcg_lightning.formats.programs import load_program, program_kind
from lcg_lightning.formats.specs import Spec, read_spec
from lcg_lightning.formats.stylegan2_pickle import load_pickle
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.diffae import DiffAEGenerator
from lcg_lightning.generators.exported import ExportedGenerator
from lcg_lightning.generators.stylegan2 import StyleGAN2Generator
from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.networks.diffae import DiffAE
from lcg_lightning.networks.stylegan2 import StyleGAN2
from lcg_lightning.zoo.shelf import WEIGHTS

Kind = Literal["StyleGAN2 pickle", "torch checkpoint", "safetensors", "program"]

Weights = dict[str, Tensor]

_SUFFIX = "-generator"
_LEGACY_CHECKPOINT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before zip files


def load_generator(source: Spec = "synthfaces", **options: Any) -> Generator:
    """Any generator, frozen.

    What a file is, its content says: a stylegan2-ada-pytorch network pickle, a DiffAE checkpoint (autoencoder or
    latent), a safetensors file of ``lcg generator convert``, or a TorchScript, torch.export or ONNX program.

    Args:
        source: name of a generator in the zoo, a file, or a YAML file (or its content) with its ``path`` and options.
            Relative paths start at the current directory.
        options: of the kind of generator. StyleGAN2: space, truncation_psi, noise, class_index, encoder; DiffAE:
            steps, invert_steps; programs: latent_shape, output_range, normal, encoder.

    Raises:
        UserError: no such file or name, a file of no known kind, a damaged one, or an unknown option.
    """
    path, given = find(source)
    build = _BUILDERS[kind_of(path)]
    return build(path, {**given, **options})


def in_zoo(source: Spec) -> bool:
    """Whether this is the name of a generator of the zoo."""
    return isinstance(source, str) and not Path(source).is_file() and _zoo_file(source).is_file()


def find(source: Spec) -> tuple[Path, dict[str, Any]]:
    """The file of a generator, and the options given with it.

    Raises:
        UserError: no such file or name, or a description without a path.
    """
    where, given = read_spec(source)
    options = given or {"path": where}
    name = options.pop("path", None)
    if not isinstance(name, str | Path):
        raise UserError(f"{where}: path is {name!r}; give the generator's file or zoo name")
    path = Path(name)
    if in_zoo(str(path)):
        path = _zoo_file(str(path))
    if not path.is_file():
        known = ", ".join(sorted(p.stem.removesuffix(_SUFFIX) for p in WEIGHTS.glob(f"*{_SUFFIX}.safetensors")))
        raise UserError(f"{path}: no such file, and the zoo has no generator of that name (it has: {known})")
    return path, options


def _zoo_file(name: str) -> Path:
    return WEIGHTS / f"{name}{_SUFFIX}.safetensors"


def kind_of(path: Path) -> Kind:
    """What a file is, by its content.

    Raises:
        UserError: nothing that a generator comes in.
    """
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


def _pickle(path: Path, options: dict[str, Any]) -> Generator:
    network, _ = load_pickle(path)
    return _stylegan2(network, None, path, options)


def _checkpoint(path: Path, options: dict[str, Any]) -> Generator:
    network, _, num_steps, statistics = load_autoencoder(path)
    return _diffae(network, num_steps, statistics, path, options)


def _program(path: Path, options: dict[str, Any]) -> Generator:
    if "latent_shape" not in options:
        raise UserError(f"{path}: a program does not say what its latents are; add latent_shape, such as [512]")
    options = _options(ExportedGenerator, {"program"}, options, path)
    return ExportedGenerator(load_program(path), **options)


def _safetensors(path: Path, options: dict[str, Any]) -> Generator:
    state, config = tensors.read(path)
    try:
        build = {"stylegan2": _own_stylegan2, "diffae": _own_diffae}[config["kind"]]
        return build(state, config, path, options)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: no generator that `lcg generator convert` wrote ({error!r})") from None


def _own_stylegan2(state: Weights, config: dict[str, Any], path: Path, options: dict[str, Any]) -> Generator:
    with torch.device("meta"):
        network = StyleGAN2(**config["network"])
        encoder = ConvNet(**config["encoder"]) if "encoder" in config else None
    load_weights(network, tensors.part(state, "network"), path)
    if encoder is not None:
        load_weights(encoder, tensors.part(state, "encoder"), path)
    return _stylegan2(network, encoder, path, options)


def _own_diffae(state: Weights, config: dict[str, Any], path: Path, options: dict[str, Any]) -> Generator:
    with torch.device("meta"):
        network = DiffAE(**config["network"])
    load_weights(network, tensors.part(state, "network"), path)
    statistics = None
    if config["statistics"] is not None:
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in config["statistics"])
        statistics = mean, std
    return _diffae(network, config["num_steps"], statistics, path, options)


def _stylegan2(network: StyleGAN2, encoder: nn.Module | None, path: Path, options: dict[str, Any]) -> Generator:
    return StyleGAN2Generator(
        network, **{"encoder": encoder, **_options(StyleGAN2Generator, {"network"}, options, path)}
    )


def _diffae(
    network: DiffAE, num_steps: int, statistics: tuple[Tensor, Tensor] | None, path: Path, options: dict[str, Any]
) -> Generator:
    own = {"network", "num_steps", "statistics"}
    return DiffAEGenerator(network, num_steps, statistics, **_options(DiffAEGenerator, own, options, path))


def _options(kind: type[Generator], own: set[str], given: dict[str, Any], path: Path) -> dict[str, Any]:
    """Options for a generator's constructor, of the types that it states; an encoder is loaded.

    Args:
        kind: the generator.
        own: arguments that are not options.
        given: what the user wrote.
        path: of the generator's file, for messages.
    """
    names = [name for name in inspect.signature(vars(kind)["__init__"]).parameters if name not in own | {"self"}]
    rest = dict(given)
    encoder = rest.pop("encoder", None) if "encoder" in names else None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip=own | {"encoder"})
    try:
        checked: dict[str, Any] = parser.parse_object(rest).as_dict()
    except (ArgumentError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: {reason} (options: {', '.join(names)})") from None
    return checked if encoder is None else checked | {"encoder": load_image_program(encoder)}


_BUILDERS: dict[Kind, Callable[[Path, dict[str, Any]], Generator]] = {
    "StyleGAN2 pickle": _pickle,
    "torch checkpoint": _checkpoint,
    "safetensors": _safetensors,
    "program": _program,
}


def convert(source: Spec, out: Path) -> Path:
    """Writes a StyleGAN2 pickle or a DiffAE autoencoder as safetensors: weights of the generator alone.

    The fingerprint stays the same, so stores and records stay valid.

    Raises:
        UserError: the file is of another kind, or ``out`` exists.
    """
    path, options = find(source)
    if options:
        raise UserError(f"{path}: a file keeps no options ({', '.join(options)}); give the file itself")
    if out.exists():
        raise UserError(f"{out} exists; remove it or give another name")
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: give a name that ends in .safetensors")
    kind = kind_of(path)
    if kind == "StyleGAN2 pickle":
        network, arguments = load_pickle(path)
        return tensors.save(out, {"network": network}, {"kind": "stylegan2", "network": arguments})
    if kind == "torch checkpoint":
        found = load_autoencoder(path)
        statistics = [x.tolist() for x in found.statistics] if found.statistics else None
        config = {"kind": "diffae", "network": found.arguments, "num_steps": found.num_steps, "statistics": statistics}
        return tensors.save(out, {"network": found.network}, config)
    raise UserError(f"{path}: a {kind} needs no conversion")

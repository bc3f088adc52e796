"""Loads judges: from the zoo, from users' network files, and from users' classes."""

from collections.abc import Mapping
from os.path import isfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.formats.descriptions import Spec, call, construct, read_spec
from lcg_lightning.formats.fingerprint import combine
from lcg_lightning.formats.preprocess import PreparedNetwork, image_program
from lcg_lightning.formats.tensors import part
from lcg_lightning.judges.attribute import AttributeJudge, Output, Readout
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.kept import keeps
from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.networks.dilated import DilatedNet
from lcg_lightning.zoo.shelf import read

ZooNetwork = ConvNet | DilatedNet


@keeps
def load_attribute_judge(spec: Spec | AttributeJudge = "synthfaces") -> AttributeJudge:
    """An attribute classifier from the zoo or from the user.

    Args:
        spec: zoo name, YAML file, or mapping. The latter two hold the arguments of :func:`attribute_judge`, or the
            ``class_path`` and ``init_args`` of a subclass of :class:`AttributeJudge`.

    Raises:
        UserError: the network or file does not exist, or its description is invalid.
    """
    if isinstance(spec, AttributeJudge):
        return spec
    where, given = read_spec(spec)
    if given is None:
        network, config, size = _zoo(where, "attributes")
        schema = AttributeSchema.from_json(config["attributes"])
        return AttributeJudge(network, schema, f"{where}-attributes", image_size=size)
    return construct(AttributeJudge, given, where) if "class_path" in given else call(attribute_judge, given, where)


@keeps
def load_identity_network(spec: Spec | IdentityNetwork = "synthfaces") -> IdentityNetwork:
    """An identity network from the zoo or from the user.

    Args:
        spec: zoo name, YAML file, or mapping. The latter two hold the arguments of :func:`image_program`, or the
            ``class_path`` and ``init_args`` of a subclass of :class:`IdentityNetwork`.

    Raises:
        UserError: the network or file does not exist, or its description is invalid.
    """
    if isinstance(spec, IdentityNetwork):
        return spec
    where, given = read_spec(spec)
    if given is None:
        network, _, size = _zoo(where, "identity")
        name, width = f"{where}-identity", network.num_features
        return IdentityNetwork(network, width, name, image_size=size, features=network.features)
    if "class_path" in given:
        return construct(IdentityNetwork, given, where)
    prepared = call(image_program, given, where)
    _columns(prepared)
    return IdentityNetwork(prepared, prepared.num_features, prepared.program.path.stem, prepared.fingerprint)


def attribute_judge(path: Path, outputs: list[dict[str, Any]], **network: Any) -> AttributeJudge:
    """A user's attribute classifier with its preprocessing.

    Args:
        path: a TorchScript, torch.export or ONNX file.
        outputs: the attributes that it predicts, each with the fields of :class:`Output`.
        network: further arguments of :func:`image_program`.

    Raises:
        UserError: see :func:`image_program`; also an output that does not fit the network's columns.
    """
    if not outputs:
        raise UserError(f"{path}: outputs is empty; list the attributes and the network's columns that tell them")
    kept = tuple(call(Output, each, f"{path}: outputs[{i}]") for i, each in enumerate(outputs))
    prepared = image_program(path, **network)
    example = _columns(prepared)
    for each in kept:
        if max(each.columns) >= example.shape[1]:
            raise UserError(
                f"{path}: attribute {each.name} reads column {max(each.columns)}, but the network gives "
                f"{example.shape[1]} columns, counted from 0"
            )
        x = example[:, list(each.columns)]
        if each.reads == "probability" and not ((x >= 0) & (x <= 1)).all():
            raise UserError(
                f"{path}: attribute {each.name} reads probabilities, but the network gives {x[0, 0]:g}; read logits"
            )
    schema = AttributeSchema(tuple(each.attribute for each in kept))
    mark = combine(prepared.fingerprint, kept)
    return AttributeJudge(nn.Sequential(prepared, Readout(kept)), schema, path.stem, mark)


def refuse_size(network: AttributeJudge | IdentityNetwork, size: int) -> None:
    """Raises a UserError if a network does not accept images with this height and width."""
    if network.image_size not in (None, size):
        raise UserError(
            f"{network.name} takes {network.image_size}x{network.image_size} images, the generator makes "
            f"{size}x{size}; name a network of your own that resizes them (configs/judges)"
        )


def _zoo(name: str, kind: str) -> tuple[ZooNetwork, dict[str, Any], int]:
    if isfile(name):
        raise UserError(f"{name} is not a YAML file; give one that names it under path (see configs/judges)")
    return zoo_network(*read(f"{name}-{kind}"))


def zoo_network(state: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[ZooNetwork, dict[str, Any], int]:
    """A judging network of the zoo from its file's content, its configuration and the size of its images."""
    kind: type[ZooNetwork] = DilatedNet if config.get("architecture") == "DilatedNet" else ConvNet
    network = kind(**config["network"])
    network.load_state_dict(part(state, "network"))
    return network, config, config["network"].get("size", 64)


def _columns(network: PreparedNetwork) -> Tensor:
    """The network's output (2, columns) for two grey images."""
    if network.example.ndim != 2:
        shape = tuple(network.example.shape)
        raise UserError(f"{network.program.path} gives {shape} for 2 images; it must give (2, columns)")
    example: Tensor = network.example
    return example

"""Networks that judge images, the zoo's and users' own: an attribute classifier and an identity embedding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.formats.fingerprint import combine, fingerprint
from lcg_lightning.formats.preprocess import PreparedNetwork, prepare
from lcg_lightning.formats.specs import Spec, build, one_of, read_spec
from lcg_lightning.formats.tensors import part
from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.zoo.shelf import read

Reads = Literal["logit", "probability", "value"]


@dataclass(frozen=True)
class Output(Attribute):
    """An attribute, and the columns of a network's output that tell it."""

    columns: tuple[int, ...] = ()
    """Binary: one, or one for each of the classes 0 and 1. Categorical: one a class. Continuous: one."""
    reads: Reads = "logit"
    """What the columns hold; ``value``, for continuous attributes, is a number in the attribute's own unit."""
    invert: bool = False
    """The network's 1 is our 0 (binary)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "columns", tuple(self.columns))
        where = f"attribute {self.name}"
        kinds = ("binary", "categorical", "continuous")
        if self.kind not in kinds:
            raise UserError(f"{where}: kind is {self.kind!r}; give one of {', '.join(kinds)}")
        one_of(f"{where}: reads", self.reads, Reads)
        if (self.kind == "continuous") != (self.reads == "value"):
            raise UserError(
                f"{where} is {self.kind} and reads {self.reads}; continuous ones, and no others, read value"
            )
        if self.invert and self.kind != "binary":
            raise UserError(f"{where} is {self.kind}; only binary attributes can be inverted")
        counts = {"binary": (1, 2), "categorical": (len(self.classes),), "continuous": (1,)}[self.kind]
        if len(self.columns) not in counts or not all(type(c) is int and c >= 0 for c in self.columns):
            number = " or ".join(map(str, counts))
            raise UserError(
                f"{where}: columns are {list(self.columns)}; a {self.kind} attribute needs {number}, from 0"
            )

    @property
    def attribute(self) -> Attribute:
        """The attribute alone."""
        return Attribute(self.name, self.kind, self.classes, self.low, self.high)

    def read(self, raw: Tensor) -> Tensor:
        """Outputs (B, num_outputs), as a schema lays them out, from a network's (B, C)."""
        x = raw[:, list(self.columns)]
        if self.kind == "continuous":
            unit = (x - self.low) / (self.high - self.low)
            return torch.cat([unit, torch.zeros_like(unit)], 1)
        if self.reads == "probability":
            x = torch.logit(x, eps=1e-7) if len(self.columns) == 1 else x.clamp_min(1e-30).log()
        if self.kind == "categorical":
            return x
        logit = x[:, -1:] if len(self.columns) == 1 else x[:, 1:] - x[:, :1]
        return -logit if self.invert else logit


class AttributeJudge(nn.Module):
    """An attribute classifier on images.

    Args:
        network: images (B, 3, H, W) in [-1, 1] to outputs (B, K), laid out by the schema.
        schema: what it tells.
        name: what it is called in messages.
        fingerprint: of all that its outputs depend on.
        image_size: the only height and width of images it takes; any by default.
    """

    def __init__(
        self, network: nn.Module, schema: AttributeSchema, name: str, fingerprint: str, image_size: int | None = None
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.schema, self.name, self.fingerprint, self.image_size = schema, name, fingerprint, image_size

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, K), laid out by the schema, of images (B, 3, H, W) in [-1, 1]."""
        out: Tensor = self.network(images)
        return out

    def select(self, schema: AttributeSchema) -> "AttributeJudge":
        """The same judge of these attributes alone, in their order.

        Where a continuous attribute has another range in ``schema``, mean and log variance are rescaled to it, so
        that the natural value stays the same.

        Raises:
            UserError: it lacks an attribute, or knows it as another kind or with other classes.
        """
        columns: list[int] = []
        scale: list[float] = []
        shift: list[float] = []
        for wanted in schema:
            try:
                mine = self.schema[wanted.name]
            except UserError as error:
                raise UserError(f"judge {self.name}: {error}") from None
            if (mine.kind, mine.classes) != (wanted.kind, wanted.classes):
                raise UserError(
                    f"attribute {wanted.name} is {_describe(wanted)} but judge {self.name} knows it as "
                    f"{_describe(mine)}; use a judge that knows it as the former"
                )
            head = self.schema.head(mine.name)
            columns += range(head.start, head.stop)
            if wanted.kind == "continuous":
                span = wanted.high - wanted.low
                ratio = (mine.high - mine.low) / span
                scale += [ratio, 1.0]
                shift += [(mine.low - wanted.low) / span, 2 * math.log(ratio)]
            else:
                scale += [1.0] * mine.num_outputs
                shift += [0.0] * mine.num_outputs
        network = nn.Sequential(self.network, _Columns(columns, scale, shift))
        return AttributeJudge(network, schema, self.name, self.fingerprint, self.image_size)


class IdentityNetwork(nn.Module):
    """An embedding of who is shown, and the features that Fréchet distances compare.

    The zoo's features lie one layer below its embedding; those of a user's network are the embedding.

    Args:
        network: the embedding.
        name: what it is called in messages and records.
        fingerprint: of all that its outputs depend on.
        image_size: the only height and width of images it takes; any by default.
    """

    def __init__(
        self, network: ConvNet | PreparedNetwork, name: str, fingerprint: str, image_size: int | None = None
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.name, self.fingerprint, self.image_size = name, fingerprint, image_size
        self.num_features = network.num_features

    def embed(self, images: Tensor) -> Tensor:
        """Identity embeddings (B, d), compared by cosine, of images (B, 3, H, W) in [-1, 1]."""
        out: Tensor = self.network(images)
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, num_features) of images (B, 3, H, W) in [-1, 1]."""
        return self.network.features(images)


def refuse_size(network: AttributeJudge | IdentityNetwork, size: int) -> None:
    """Raises a UserError if a network does not take images of this height and width."""
    if network.image_size not in (None, size):
        raise UserError(
            f"{network.name} takes {network.image_size}x{network.image_size} images, the generator makes "
            f"{size}x{size}; name a network of your own that resizes them (configs/judges)"
        )


def load_attribute_judge(spec: Spec = "synthfaces") -> AttributeJudge:
    """An attribute classifier, of the zoo or a user's own.

    Args:
        spec: name in the zoo, YAML file, or mapping. The latter two hold ``path``, a TorchScript, torch.export or
            ONNX file; the fields of :class:`Preprocess`; and ``outputs``, a list of fields of :class:`Output`.

    Raises:
        UserError: no such network or file, or a key or value in the description that does not fit.
    """
    where, given = read_spec(spec)
    if given is None:
        network, config, size = _zoo(where, "attributes")
        schema = AttributeSchema.from_json(config["attributes"])
        return AttributeJudge(network, schema, f"{where}-attributes", fingerprint(network), size)
    outputs = given.pop("outputs", None)
    if not isinstance(outputs, list) or not outputs:
        raise UserError(f"{where}: outputs is missing; list the attributes and the network's columns that tell them")
    kept = tuple(build(Output, each, f"{where}: outputs[{i}]") for i, each in enumerate(outputs))
    prepared, name = prepare(where, given, also=("outputs",))
    example = _columns(prepared)
    for each in kept:
        if max(each.columns) >= example.shape[1]:
            raise UserError(
                f"{where}: attribute {each.name} reads column {max(each.columns)}, but the network gives "
                f"{example.shape[1]} columns, counted from 0"
            )
        x = example[:, list(each.columns)]
        if each.reads == "probability" and not ((x >= 0) & (x <= 1)).all():
            raise UserError(
                f"{where}: attribute {each.name} reads probabilities, but the network gives {x[0, 0]:g}; read logits"
            )
    schema = AttributeSchema(tuple(each.attribute for each in kept))
    mark = combine(prepared.fingerprint, kept)
    return AttributeJudge(nn.Sequential(prepared, _Readout(kept)), schema, name, mark)


def load_identity_network(spec: Spec = "synthfaces") -> IdentityNetwork:
    """An identity network, of the zoo or a user's own.

    Args:
        spec: as for :func:`load_attribute_judge`, without ``outputs``.

    Raises:
        UserError: no such network or file, or a key or value in the description that does not fit.
    """
    where, given = read_spec(spec)
    if given is None:
        network, _, size = _zoo(where, "identity")
        return IdentityNetwork(network, f"{where}-identity", fingerprint(network), size)
    prepared, name = prepare(where, given)
    _columns(prepared)
    return IdentityNetwork(prepared, name, prepared.fingerprint)


class _Readout(nn.Module):
    def __init__(self, outputs: Sequence[Output]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, raw: Tensor) -> Tensor:
        return torch.cat([each.read(raw) for each in self.outputs], 1)


class _Columns(nn.Module):
    """Picks columns and rescales them."""

    def __init__(self, columns: list[int], scale: list[float], shift: list[float]) -> None:
        super().__init__()
        self.columns, self.scale, self.shift = columns, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.columns] * x.new_tensor(self.scale) + x.new_tensor(self.shift)


def _zoo(name: str, kind: str) -> tuple[ConvNet, dict[str, Any], int]:
    if Path(name).is_file():
        raise UserError(f"{name} is no YAML file; give one that names it under path (see configs/judges)")
    state, config = read(f"{name}-{kind}")
    network = ConvNet(**config["network"])
    network.load_state_dict(part(state, "network"))
    return network, config, config["network"].get("size", 64)


def _columns(network: PreparedNetwork) -> Tensor:
    """The network's output (2, columns) for two grey images."""
    if network.example.ndim != 2:
        shape = tuple(network.example.shape)
        raise UserError(f"{network.program.path} gives {shape} for 2 images; it must give (2, columns)")
    example: Tensor = network.example
    return example


def _describe(attribute: Attribute) -> str:
    return f"{attribute.kind} ({', '.join(attribute.classes)})" if attribute.classes else attribute.kind

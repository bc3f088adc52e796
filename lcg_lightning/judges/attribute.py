"""Attribute classifiers on images, and the mapping from a user network's columns to attributes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.formats.fingerprint import fingerprint as weights_fingerprint
from lcg_lightning.judges.parts import in_parts


@dataclass(frozen=True)
class Output(Attribute):
    """An attribute, and the columns of a network's output that predict it."""

    columns: tuple[int, ...] = ()
    """Binary: one column, or one for each of the classes 0 and 1. Categorical: one per class. Continuous: one."""
    reads: Literal["logit", "probability", "value"] = "logit"
    """What the columns hold; ``value``, for continuous attributes, is a number in the attribute's own unit."""
    invert: bool = False
    """The network's 1 is our 0 (binary only)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"attribute {self.name}"
        if (self.kind == "continuous") != (self.reads == "value"):
            raise UserError(
                f"{where} is {self.kind} and reads {self.reads}; continuous ones, and no others, read value"
            )
        if self.invert and self.kind != "binary":
            raise UserError(f"{where} is {self.kind}; only binary attributes can be inverted")
        counts = {"binary": (1, 2), "categorical": (len(self.classes),), "continuous": (1,)}[self.kind]
        if len(self.columns) not in counts or min(self.columns) < 0:
            number = " or ".join(map(str, counts))
            raise UserError(
                f"{where}: columns are {list(self.columns)}; a {self.kind} attribute needs {number}, from 0"
            )

    @property
    def attribute(self) -> Attribute:
        """The attribute without its columns."""
        return Attribute(self.name, self.kind, self.classes, self.low, self.high)

    def read(self, raw: Tensor) -> Tensor:
        """Outputs (B, num_outputs), in the schema's layout, from a network's columns (B, C)."""
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
    """A frozen attribute classifier on images. Subclass it for your own judge.

    Args:
        network: images (B, 3, H, W) in [-1, 1] to outputs (B, K), laid out by the schema.
        schema: the attributes that it predicts.
        name: its name in messages and records; the class name by default.
        fingerprint: hash of everything that its outputs depend on; by default a hash of the weights.
        image_size: the only image height and width that it accepts; any by default.
    """

    def __init__(
        self,
        network: nn.Module,
        schema: AttributeSchema,
        name: str | None = None,
        fingerprint: str | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.schema, self.image_size = schema, image_size
        self.name = name or type(self).__name__
        self.fingerprint = fingerprint or weights_fingerprint(network)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, K), laid out by the schema, of images (B, 3, H, W) in [-1, 1]."""
        return in_parts(self.network, images)

    def select(self, schema: AttributeSchema) -> "AttributeJudge":
        """The same judge, restricted to these attributes and in their order.

        If a continuous attribute has another range in ``schema``, its mean and log variance are rescaled so that the
        natural value stays the same.

        Raises:
            UserError: the judge lacks an attribute, or its kind or classes differ.
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
        network = nn.Sequential(self, _Columns(columns, scale, shift))
        return AttributeJudge(network, schema, self.name, self.fingerprint, self.image_size)


class Readout(nn.Module):
    """Maps a user network's columns (B, C) to outputs (B, K) in the schema's layout."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, raw: Tensor) -> Tensor:
        """Outputs (B, K) of columns (B, C)."""
        return torch.cat([each.read(raw) for each in self.outputs], 1)


class _Columns(nn.Module):
    """Picks columns and rescales them."""

    def __init__(self, columns: list[int], scale: list[float], shift: list[float]) -> None:
        super().__init__()
        self.columns, self.scale, self.shift = columns, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.columns] * x.new_tensor(self.scale) + x.new_tensor(self.shift)


def _describe(attribute: Attribute) -> str:
    return f"{attribute.kind} ({', '.join(attribute.classes)})" if attribute.classes else attribute.kind

"""Users' image networks with the preprocessing that they expect."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats.descriptions import Spec, call, read_spec
from lcg_lightning.formats.fingerprint import combine
from lcg_lightning.formats.programs import Program, load_program


@dataclass(frozen=True)
class Preprocess:
    """Turns images (B, 3, H, W) in [-1, 1] into a network's input: pool, crop, resize, then normalize."""

    size: int
    """Height and width that the network takes."""
    pool: int | None = None
    """Average-pool to this height and width first."""
    crop: tuple[int, int, int, int] | None = None
    """Top, bottom, left and right edge, in pixels of the pooled image."""
    resize: Literal["area", "bilinear"] = "area"
    """Average pooling, or bilinear interpolation with an antialiasing filter."""
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: float | tuple[float, float, float] = 0.5
    """Subtracted from pixels in [0, 1]; one number, or one per channel in the order of ``channels``."""
    std: float | tuple[float, float, float] = 0.5

    def __post_init__(self) -> None:
        for name in ("size", "pool"):
            if (side := getattr(self, name)) is not None and side < 1:
                raise UserError(f"{name} is {side}; give a number of pixels")
        if min(_numbers(self.std)) <= 0:
            raise UserError(f"std is {self.std}; it must be positive")
        if self.crop is not None:
            top, bottom, left, right = self.crop
            if self.pool is None or not (0 <= top < bottom <= self.pool and 0 <= left < right <= self.pool):
                raise UserError(
                    f"crop {list(self.crop)} does not lie in pool {self.pool}; set pool, or correct the crop"
                )

    def __call__(self, images: Tensor) -> Tensor:
        """Network input (B, 3, size, size)."""
        x = images if self.pool is None else F.adaptive_avg_pool2d(images, self.pool)
        if self.crop is not None:
            top, bottom, left, right = self.crop
            x = x[:, :, top:bottom, left:right]
        if self.resize == "area":
            x = F.adaptive_avg_pool2d(x, self.size)
        else:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        if self.channels == "bgr":
            x = x.flip(1)
        mean, std = (x.new_tensor(_numbers(v))[:, None, None] for v in (self.mean, self.std))
        return ((x + 1) / 2 - mean) / std


class PreparedNetwork(nn.Module):
    """A user's network with its preprocessing: images (B, 3, H, W) in [-1, 1] to (B, num_features)."""

    def __init__(self, program: Program, preprocess: Preprocess) -> None:
        super().__init__()
        self.program, self.preprocess = program, preprocess
        with torch.no_grad():
            self.example = self(torch.zeros(2, 3, preprocess.size, preprocess.size))
        self.num_features = self.example.shape[-1]
        self.fingerprint = combine(program.fingerprint, preprocess)

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs (B, num_features)."""
        out: Tensor = self.program(self.preprocess(images))
        return out


def image_program(path: Path, trusted: bool = False, **preprocess: Any) -> PreparedNetwork:
    """A user's image network with its preprocessing.

    Args:
        path: a TorchScript, torch.export or ONNX file.
        trusted: as for :func:`load_program`.
        preprocess: fields of :class:`Preprocess`.

    Raises:
        UserError: the file cannot be loaded, or the preprocessing is invalid.
    """
    before = Preprocess(**preprocess)
    return PreparedNetwork(load_program(path, (2, 3, before.size, before.size), trusted), before)


def load_encoder(spec: Spec) -> PreparedNetwork:
    """A user's encoder, as described by a generator's ``encoder``.

    Args:
        spec: YAML file or mapping with the arguments of :func:`image_program`.

    Raises:
        UserError: see :func:`image_program`; also a missing, unknown or mistyped key.
    """
    where, given = read_spec(spec)
    if given is None:
        raise UserError(f"encoder {where}: give a mapping or a YAML file with the network's path and size")
    return call(image_program, given, where)


def _numbers(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)

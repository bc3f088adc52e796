"""Users' networks of images, behind the preprocessing that they expect."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats.fingerprint import combine
from lcg_lightning.formats.programs import Program, load_program
from lcg_lightning.formats.specs import Spec, build, one_of, read_spec

Resize = Literal["area", "bilinear"]
Channels = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class Preprocess:
    """Images (B, 3, H, W) in [-1, 1] to what a network takes: pooled, cropped, resized, then normalised."""

    size: int
    """Height and width that the network takes."""
    pool: int | None = None
    """Average-pool to this height and width first."""
    crop: tuple[int, int, int, int] | None = None
    """Top, bottom, left and right edge, in pixels of the pooled image."""
    resize: Resize = "area"
    """Average pooling, or bilinear interpolation with an antialiasing filter."""
    channels: Channels = "rgb"
    mean: float | tuple[float, float, float] = 0.5
    """Subtracted from pixels in [0, 1]; one number, or one a channel in the order of ``channels``."""
    std: float | tuple[float, float, float] = 0.5

    def __post_init__(self) -> None:
        for name in ("crop", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        one_of("resize", self.resize, Resize)
        one_of("channels", self.channels, Channels)
        for name in ("size", "pool"):
            side = getattr(self, name)
            if not (type(side) is int and side > 0) and not (name == "pool" and side is None):
                raise UserError(f"{name} is {side!r}; give a number of pixels")
        for name in ("mean", "std"):
            numbers = _numbers(getattr(self, name))
            if len(numbers) not in (1, 3) or not all(isinstance(x, int | float) for x in numbers):
                raise UserError(f"{name} is {getattr(self, name)!r}; give one number or three")
            if name == "std" and min(numbers) <= 0:
                raise UserError(f"std is {self.std!r}; it must be positive")
        if self.crop is not None:
            if len(self.crop) != 4 or not all(type(edge) is int for edge in self.crop):
                raise UserError(f"crop is {self.crop!r}; give top, bottom, left, right in pixels")
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
    """A user's network behind its preprocessing: images (B, 3, H, W) in [-1, 1] to (B, num_features)."""

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

    features = forward


def load_image_program(spec: Spec) -> PreparedNetwork:
    """A user's network of images, such as an encoder, behind its preprocessing.

    Args:
        spec: as for :func:`load_identity_network`.
    """
    where, given = read_spec(spec)
    if given is None:
        raise UserError(f"{where}: give a mapping or YAML file with the network's path and size")
    return prepare(where, given)[0]


def prepare(where: str, given: dict[str, Any], also: tuple[str, ...] = ()) -> tuple[PreparedNetwork, str]:
    """The network of a description, with its name; ``also`` are keys that were taken from the description."""
    path = given.pop("path", None)
    if not isinstance(path, str | Path):
        raise UserError(f"{where}: path is missing; give the network's file")
    preprocess = build(Preprocess, given, where, also=("path", *also))
    return PreparedNetwork(load_program(Path(path)), preprocess), Path(path).stem


def _numbers(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)

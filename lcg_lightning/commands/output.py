"""How commands write their results: a folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.files import refuse_occupied


def check_batches(batch_size: int, device: str) -> None:
    """Checks what every command that computes is told.

    Raises:
        UserError: a batch size below 1, or a device that is not there.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device {device!r} cannot be used ({reason}); try cpu") from None


@contextmanager
def folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its name at the end, or is removed if the block fails.

    Raises:
        UserError: ``out`` is there and not empty.
    """
    refuse_occupied(out)
    part = out.with_name(f".{out.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_images(part: Path, images: Tensor, first: int, suffix: str = "") -> None:
    """Writes images (B, 3, H, W) in [-1, 1] as images/NNNNN<suffix>.png, numbered from ``first``."""
    (part / "images").mkdir(exist_ok=True)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for i, picture in enumerate(pixels, first):
        Image.fromarray(picture).save(part / "images" / f"{i:05d}{suffix}.png", compress_level=1)


def write_latents(part: Path, latents: Tensor, **about: str) -> None:
    """Writes latents as the generator takes them, with plain-text metadata, into latents.safetensors."""
    save_file({"latents": latents.contiguous()}, part / "latents.safetensors", metadata=about)

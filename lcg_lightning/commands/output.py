"""What commands that compute share: checks of their arguments, and the files they write."""

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic, ensure_creatable

MOST = 10_000_000
"""Images that one command makes: what they are made of is kept in memory, about 500 bytes each or more."""


def check(out: Path, batch_size: int, device: str) -> None:
    """Check what every command that computes is told, before anything is loaded.

    Raises:
        UserError: a folder that is there and not empty or cannot be made, a batch size below 1, or a device that is
            not there.
    """
    ensure_creatable(out)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device {device!r} cannot be used ({reason}); try cpu") from None


def write_images(part: Path, images: Tensor, first: int, suffix: str = "") -> None:
    """Write images (B, 3, H, W) in [-1, 1] as images/NNNNN<suffix>.png, numbered from ``first``."""
    (part / "images").mkdir(exist_ok=True)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for i, picture in enumerate(pixels, first):
        Image.fromarray(picture).save(part / "images" / f"{i:05d}{suffix}.png", compress_level=1)


def write_latents(part: Path, latents: Tensor, **about: str) -> None:
    """Write latents as the generator takes them, with plain-text metadata, into latents.safetensors."""
    with atomic(part / "latents.safetensors") as file:
        save_file({"latents": latents.contiguous()}, file, metadata=about)

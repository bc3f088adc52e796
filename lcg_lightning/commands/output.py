"""Argument checks and output files that several commands share."""

from pathlib import Path

from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lcg_lightning.data.images import in_bytes
from lcg_lightning.devices import refuse_missing
from lcg_lightning.diffusion.noise import check_seed
from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic, ensure_creatable

MOST = 10_000_000
"""Most images that one command makes: their latents are kept in memory, about 500 bytes or more per image."""


def check(out: Path, batch_size: int, device: str, seed: int | None = None) -> None:
    """Check the arguments that several commands share, before anything is loaded.

    Raises:
        UserError: the folder exists and is not empty or cannot be made, the batch size is below 1, the seed is
            negative or too large, or the device is not available.
    """
    ensure_creatable(out)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    if seed is not None:
        check_seed(seed)
    refuse_missing(device)


def write_images(part: Path, images: Tensor, first: int, suffix: str = "") -> None:
    """Write images (B, 3, H, W) in [-1, 1] as images/NNNNN<suffix>.png, numbered from ``first``."""
    (part / "images").mkdir(exist_ok=True)
    pixels = in_bytes(images).permute(0, 2, 3, 1).numpy()
    for i, picture in enumerate(pixels, first):
        Image.fromarray(picture).save(part / "images" / f"{i:05d}{suffix}.png", compress_level=1)


def write_latents(part: Path, latents: Tensor, **about: str) -> None:
    """Write latents in the generator's form, with plain-text metadata, into latents.safetensors."""
    with atomic(part / "latents.safetensors") as file:
        save_file({"latents": latents.contiguous()}, file, metadata=about)

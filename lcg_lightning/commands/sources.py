"""What ``lcg edit`` edits: rows of the store, images, or faces that the generator draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lcg_lightning.data.images import ImageFiles, find_images
from lcg_lightning.data.lmdb import LMDB_SUFFIXES
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator

SOME = 16
"""How many rows or sampled faces are edited unless a number is given."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Latents to edit, numbered from 0."""

    words: str
    """Where they are from."""
    count: int
    read: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    """Numbers (B,) of sources -> their latents (B, *shape) and their image noise, on the generator's device."""


def stored_rows(
    generator: Generator,
    store: LatentStore,
    split: str,
    rows: Sequence[int] | None,
    n: int | None,
    device: str,
) -> Sources:
    """Rows of a split, by number or the first ``n``.

    Raises:
        UserError: the store has no such split, or the split no such row.
    """
    latents = store.split(split).latents
    count = len(latents)
    chosen = range(min(n or SOME, count)) if rows is None else rows
    if wrong := [row for row in chosen if not 0 <= row < count]:
        raise UserError(f"lcg edit: no row {wrong[0]} in the {split} split; its {count} rows count from 0")
    numbers = torch.tensor(list(chosen))

    def read(index: Tensor) -> tuple[Tensor, Tensor | None]:
        w = latents[numbers[index]].to(device)
        return w, generator.noise_of(0, numbers[index], w)

    return Sources(f"{split} {_numbers(chosen)}", len(numbers), read)


def image_files(generator: Generator, images: Path, n: int | None, resize: bool, device: str) -> Sources:
    """An image file, or the images of a folder or LMDB; if the generator can invert, with the noise that decodes to it.

    Raises:
        UserError: there is no such file, no image in the folder, or the first one does not fit.
    """
    several = images.is_dir() or images.suffix in LMDB_SUFFIXES
    found = [ref for _, ref in sorted(find_images(images, generator.image_size).items())] if several else [images]
    files = ImageFiles(found[:n], generator.image_size, resize=resize)
    files.pixels([0])  # before anything is prepared

    def read(index: Tensor) -> tuple[Tensor, Tensor | None]:
        pixels = torch.stack([files[k] for k in index.tolist()]).to(device)
        w = generator.encode(pixels)
        return w, generator.invert(pixels, w) if generator.can("invert") else generator.noise_of(0, index, w)

    return Sources(str(images), len(files), read)


def sampled(generator: Generator, seed: int, n: int | None, device: str) -> Sources:
    """Latents from the generator's own distribution; that of a number depends on the seed and the number alone."""

    def read(index: Tensor) -> tuple[Tensor, Tensor | None]:
        w = generator.latents_of(seed, index).to(device)
        return w, generator.noise_of(seed, index, w)

    return Sources(f"faces sampled with seed {seed}", n or SOME, read)


def _numbers(rows: Sequence[int]) -> str:
    """Row numbers in words: "row 5", "rows 0 to 15", "rows 5, 17"."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    span = isinstance(rows, range)
    return f"rows {rows[0]} to {rows[-1]}" if span else f"rows {', '.join(map(str, rows))}"

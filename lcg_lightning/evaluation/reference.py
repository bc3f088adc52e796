"""Pictures of a store's rows: their image files if given, otherwise their decoded latents."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lcg_lightning.data.distributed import UnpaddedSampler
from lcg_lightning.data.images import ImageFiles, ImageRef, find_images, stamp
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.judged import Judges, Pictures
from lcg_lightning.formats.fingerprint import combine
from lcg_lightning.generators.base import Generator

_OWN_NOISE = 1 << 62
"""Offset of a row's noise index, so that no generated sample shares the noise."""


def files_of(folder: Path, store: LatentStore, split: str, size: int) -> list[ImageRef]:
    """The image file of each row of a split, in order.

    Args:
        folder: folder or LMDB of images.
        store: the store with the rows.
        split: a split of the store.
        size: size to read from an LMDB that holds several sizes of each image.

    Raises:
        UserError: a row has no image.
    """
    found = find_images(folder, size)
    ids = store.split(split).ids
    if missing := [i for i in ids if i not in found]:
        raise UserError(f"{folder}: no image for {missing[0]} and {len(missing) - 1} more {split} rows")
    return [found[i] for i in ids]


def read_files(files: list[ImageRef], rows: Tensor, size: int, resize: bool) -> Tensor:
    """Images (B, 3, size, size) in [-1, 1] of rows (B,), on the CPU."""
    images = ImageFiles([files[i] for i in rows.tolist()], size, resize=resize)
    return torch.stack([images[i] for i in range(len(images))])


def decoder(generator: Generator) -> str:
    """Identifies how latents become pictures: by the weights, and by settings such as steps, noise or image size."""
    return combine(generator.fingerprint, sorted(generator.settings.items()))


class Reference:
    """The pictures that the generated distribution is compared with: one split of a store.

    Args:
        store: the store with the split.
        space: space of the store's latents, with the generator.
        split: not the one whose rows define what is asked, which a method may return.
        images: folder or LMDB of the image files; without it, the rows' latents are decoded.
        resize: scale square image files to the generator's size instead of refusing them.
        seed: seed of the noise of decoded images, if the generator takes noise.

    Raises:
        UserError: the store has no such split, or a row has no image.
    """

    def __init__(
        self, store: LatentStore, space: LatentSpace, split: str, images: Path | None, resize: bool, seed: int
    ) -> None:
        if split not in store.sizes:
            raise UserError(
                f"{store.path} has no {split} split for FID to compare with (it has {', '.join(store.sizes)}); give "
                "another as reference, or set features: none"
            )
        self.latents = store.split(split).latents
        self.space, self.split, self.resize, self.seed = space, split, resize, seed
        self.size = space.generator.image_size
        self.mark = combine(store.content_hash, decoder(space.generator), images, seed)
        self.files = None if images is None else files_of(images, store, split, self.size)

    def __str__(self) -> str:
        if self.files is None:
            kind = "decoded latents"
        else:
            sizes = combine(*(stamp(file)[0] for file in self.files))  # in bytes; they identify the files
            kind = f"{'resized ' * self.resize}image files @{sizes}"
        return f"{len(self.latents)} {kind} of {self.split} at {self.size} pixels"

    def batches(
        self, judges: Judges, size: int, world: int, rank: int, device: torch.device
    ) -> Iterator[tuple[Pictures, Tensor]]:
        """One process's share of the rows: pictures on the device, and their rows (B,).

        Batches are dealt to the processes in turn, so they do not depend on the number of processes.
        """
        about = str(self)
        share = UnpaddedSampler(range(len(self.latents)), world, rank, block=size).share
        for start in range(0, len(share), size):
            rows = torch.tensor(share[start : start + size])
            z = self.space.standardize(self.latents[rows].to(device))
            mark = combine(self.mark, about, *share[start : start + size])
            yield Pictures(z, partial(self._images, z, rows), judges, mark), rows

    def _images(self, z: Tensor, rows: Tensor, part: Tensor | slice) -> Tensor:
        """Images (B', 3, S, S) in [-1, 1] of some of the rows (B,) with latents z (B, D), on the device of z."""
        if self.files is not None:
            return read_files(self.files, rows[part], self.size, self.resize).to(z.device)
        return self.space.decode_samples(z[part], self.seed, rows[part] + _OWN_NOISE)

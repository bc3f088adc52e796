"""The picture that accompanies a record: the first samples, or the first sequences of edits."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from lcg_lightning.data.images import in_bytes
from lcg_lightning.evaluation import figures
from lcg_lightning.evaluation.judged import Pictures
from lcg_lightning.files import atomic

SHOWN = 16
"""Number of samples in the picture; half as many for strips of edits."""
EDITS = "edits.png"
"""File of :func:`keep`."""
_PIXELS = 128  # largest height and width of images kept for comparisons

Kept = tuple[int, Tensor, list[str]]
"""Index of a sample, its images (S, 3, H, W) in [-1, 1], and a caption for each."""


class Gallery:
    """Keeps small copies of the first samples until they are drawn."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    def add(self, index: Tensor, strips: Sequence[Pictures], captions: Sequence[list[str]]) -> None:
        """Adds a batch of samples, of which only those to draw are decoded.

        Args:
            index: global sample indices (B,).
            strips: pictures of the samples for each column of the strip.
            captions: for each sample, one text per column.
        """
        rows = (index < SHOWN).nonzero()[:, 0]
        if len(rows):
            shown = torch.stack([pictures.some(rows) for pictures in strips], 1)  # (b, columns, 3, S, S)
            for b, images in zip(rows.tolist(), shown, strict=True):
                self.kept.append((int(index[b]), figures.shrink(images).cpu(), captions[b]))

    def gathered(self) -> list[Kept]:
        """The samples of all processes, ordered by index; every process must call this."""
        kept = self.kept
        if dist.is_available() and dist.is_initialized():
            parts: list[list[Kept] | None] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, kept)
            kept = [item for part in parts for item in part or []]
        return sorted(kept, key=lambda item: item[0])


def draw(samples: Sequence[Kept], path: Path) -> None:
    """Draws gathered samples: as strips if a sample has several images, otherwise as a grid."""
    if len(samples[0][1]) > 1:
        figures.strips([(images, captions) for _, images, captions in samples[: SHOWN // 2]], path)
    else:
        figures.grid(torch.cat([images for _, images, _ in samples]), [c[0] for _, _, c in samples], 8, path)


def keep(samples: Sequence[Kept], path: Path) -> None:
    """Writes source and last result of gathered edits, so that methods can be shown side by side.

    The PNG file has the sources of samples 0 to k - 1 in its upper row and their results in the lower, pixel for pixel,
    at most 128 pixels high and wide. Its text ``edits`` is a JSON list of what each sample is asked for, in words.
    """
    chosen = samples[: SHOWN // 2]
    images = torch.stack([strip[[0, -1]] for _, strip, _ in chosen], 1)  # (2, k, 3, H, W)
    if max(images.shape[-2:]) > _PIXELS:
        images = F.adaptive_avg_pool2d(images.flatten(0, 1), _PIXELS).reshape(*images.shape[:3], _PIXELS, _PIXELS)
    pixels = in_bytes(images).permute(0, 3, 1, 4, 2)  # (2, H, k, W, 3)
    about = PngInfo()
    about.add_itxt("edits", json.dumps([" → ".join(captions[1:]) for _, _, captions in chosen], ensure_ascii=False))
    with atomic(path) as temporary:
        Image.fromarray(pixels.flatten(2, 3).flatten(0, 1).numpy()).save(temporary, pnginfo=about, optimize=True)

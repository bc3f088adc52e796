"""The picture that accompanies a record: the first samples, or the first sequences of edits."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lcg_lightning.evaluation import figures
from lcg_lightning.evaluation.judged import Pictures

SHOWN = 16
"""Number of samples in the picture; half as many for strips of edits."""


class Gallery:
    """Keeps small copies of the first samples until they are drawn."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, Tensor, list[str]]] = []

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

    def gathered(self) -> list[tuple[int, Tensor, list[str]]]:
        """The samples of all processes, ordered by index; every process must call this."""
        kept = self.kept
        if dist.is_available() and dist.is_initialized():
            parts: list[list[tuple[int, Tensor, list[str]]] | None] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, kept)
            kept = [item for part in parts for item in part or []]
        return sorted(kept, key=lambda item: item[0])


def draw(samples: Sequence[tuple[int, Tensor, list[str]]], path: Path) -> None:
    """Draws gathered samples: as strips if a sample has several images, otherwise as a grid."""
    if len(samples[0][1]) > 1:
        figures.strips([(images, captions) for _, images, captions in samples[: SHOWN // 2]], path)
    else:
        figures.grid(torch.cat([images for _, images, _ in samples]), [c[0] for _, _, c in samples], 8, path)

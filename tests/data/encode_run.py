"""Encodes numbered images with a generator that logs each one, as a script on two processes."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.annotated import AnnotatedImages
from lcg_lightning.data.encode import encode
from lcg_lightning.data.images import find_images
from lcg_lightning.generators.base import Generator

SIZE = 8


class FakeGenerator(Generator):
    """A random matrix as encoder; its float32 sums depend on the batch it is given."""

    latent_shape = (2, 3)
    image_size = SIZE

    def __init__(self, log: Path | None = None, fail_at: int = -1, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.matrix = nn.Linear(3 * SIZE * SIZE, 6)
        self.log = log
        self.calls_left = fail_at

    def encode(self, images: Tensor) -> Tensor:
        if self.calls_left == 0:
            raise RuntimeError("the encoder broke")
        self.calls_left -= 1
        if self.log:
            with self.log.open("a") as file:
                file.writelines(f"{number} {os.getpid()}\n" for number in image_numbers(images))
        return self.matrix(images.flatten(1)).view(-1, 2, 3)


def image_numbers(images: Tensor) -> list[int]:
    """The number that the test wrote into an image's first pixel."""
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def annotated(folder: Path) -> AnnotatedImages:
    paths = find_images(folder)
    labels = torch.arange(len(paths)).remainder(2).float()[:, None]
    return AnnotatedImages(list(paths), labels, AttributeSchema((Attribute("Odd"),)), paths=list(paths.values()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, out, log = map(Path, sys.argv[1:])
    options = {"batch_size": 4, "shard_batches": 2, "accelerator": "cpu", "devices": 2}
    encode(annotated(folder), FakeGenerator(log), out, **options)

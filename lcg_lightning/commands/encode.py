"""``lcg encode``: labelled images into a latent store."""

from pathlib import Path
from typing import Literal

from lcg_lightning.attributes import Attribute
from lcg_lightning.data import encode as encoding
from lcg_lightning.data.celebahq import read_celebahq, read_splits
from lcg_lightning.generators.zoo import load_generator


def encode(
    out: Path,
    images: Path,
    annotations: Path,
    generator: str = "synthfaces",
    attributes: list[str] | None = None,
    measure_files: list[Path] | None = None,
    measures: list[Attribute] | None = None,
    splits: Path | None = None,
    resize: bool = False,
    batch_size: int = 64,
    num_workers: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    strategy: Literal["auto", "ddp"] = "auto",
) -> Path:
    """Encode labelled images into a latent store.

    An interrupted run goes on where it stopped when it is given again.

    Args:
        out: folder of the store to make.
        images: folder of image files.
        annotations: attribute file in the form of CelebAMask-HQ-attribute-anno.txt.
        generator: name of a generator in the zoo.
        attributes: binary attributes to keep; all by default.
        measure_files: files of real numbers in the form of CelebAMask-HQ-pose-anno.txt.
        measures: their columns to keep, each {name, kind: continuous, low, high}.
        splits: file of image names and 0 (train), 1 (val) or 2 (test); by default a hash of the name decides.
        resize: scale square images of another size.
        batch_size: images in a batch, per process.
        num_workers: processes that read image files, per process.
        accelerator: as in Lightning's Trainer.
        devices: number of processes.
        strategy: as in Lightning's Trainer.
    """
    faces = read_celebahq(images, annotations, attributes, measure_files or (), measures or ())
    return encoding.encode(
        faces,
        load_generator(generator),
        out,
        read_splits(splits, faces.ids) if splits else None,
        source={"images": str(images), "annotations": str(annotations), "generator": generator},
        resize=resize,
        batch_size=batch_size,
        num_workers=num_workers,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
    )

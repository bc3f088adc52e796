"""Makes latent stores from images or from a generator's samples; an interrupted run can be resumed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.annotated import AnnotatedImages, AnnotatedLatents
from lcg_lightning.data.images import ImageFiles, in_range, stamp
from lcg_lightning.data.rows import SPLITS, hash_splits
from lcg_lightning.data.shards import Shards
from lcg_lightning.data.store import Split, write_store
from lcg_lightning.data.work import Loop, work
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.load import refuse_size


def encode(
    images: AnnotatedImages,
    generator: Generator,
    out: str | Path,
    *,
    source: Mapping[str, Any] | None = None,
    resize: bool = False,
    **loop: Unpack[Loop],
) -> Path:
    """Encode images into a latent store.

    Finished rows are kept in ``<out>.partial`` until the store is complete. After an interruption, the same call
    encodes only the remaining rows, on any number of processes; a killed process loses at most its last
    ``shard_batches`` batches. Interruptions do not change a bit of the store. While a run is active, another with the
    same ``out`` is refused.

    Args:
        images: files, labels and splits.
        generator: a generator with an encoder.
        out: folder of the store to make.
        source: origin of the images, as plain JSON values, for the store's record.
        resize: scale square images to the generator's size instead of refusing them.
        loop: how to work through them.

    Raises:
        UserError: ``out`` exists and is not empty; the partial folder belongs to other images or another generator; an
            image cannot be read or has another size; a latent is not finite.
    """
    out = Path(out)
    if not generator.can("encode"):
        generator.encode(torch.zeros(0))  # raises the reason
    _refuse_no_train(images.ids, images.splits)
    names = hashlib.sha256("\n".join(images.ids).encode()).hexdigest()[:16]
    owner = _owner(generator) | {"image names": names}
    shards = Shards(out, torch.tensor([stamp(ref) for ref in images.paths]), owner, _annotation(images))
    files = ImageFiles(images.paths, generator.image_size, resize=resize)

    def write(folder: Path, latents: Tensor, _: Tensor) -> Path:
        rows = AnnotatedLatents(images.ids, images.labels, images.schema, images.splits, latents=latents)
        return store(rows, generator, folder, source=source)

    return work(shards, _Encoding(generator), files.pixels, images.ids, generator.latent_shape, write, loop)


def sample_and_label(
    n: int,
    judge: AttributeJudge,
    generator: Generator,
    out: str | Path,
    *,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    **loop: Unpack[Loop],
) -> Path:
    """Draw latents from the generator's own distribution and label their images, as StyleFlow and LACE did.

    Row i depends only on the seed and i. Interruptions and processes are handled as in :func:`encode`.

    Args:
        n: rows to draw.
        judge: the classifier that labels the images; its attributes become the store's.
        generator: a generator that can sample.
        out: folder of the store to make.
        seed: seed of the draws.
        source: origin of the rows, as plain JSON values, for the store's record.
        loop: how to work through them.

    Raises:
        UserError: ``out`` exists and is not empty, the generator cannot sample, or the judge takes another image size.
    """
    out, ids = Path(out), [f"{i:06d}" for i in range(n)]
    if not generator.can("sample_latents"):
        generator.sample_latents(0, torch.Generator())  # raises the reason
    _refuse_no_train(ids, None)
    refuse_size(judge, generator.image_size)
    owner = _owner(generator) | {"labels": judge.fingerprint, "seed": str(seed)}
    shards = Shards(out, torch.zeros(n, 2, dtype=torch.int64), owner)

    def write(folder: Path, latents: Tensor, labels: Tensor) -> Path:
        return store(AnnotatedLatents(ids, labels, judge.schema, latents=latents), generator, folder, source=source)

    loop["num_workers"] = 0  # nothing is read
    return work(shards, _Drawing(generator, judge, seed), np.array, ids, generator.latent_shape, write, loop)


def store(
    rows: AnnotatedLatents, generator: Generator, out: str | Path, *, source: Mapping[str, Any] | None = None
) -> Path:
    """Write labelled latents of a generator into a store, standardized by the generator's own statistics if it has any.

    Raises:
        UserError: ``out`` exists and is not empty, or a latent or label cannot be stored.
    """
    splits = rows.splits or hash_splits(rows.ids)
    parts = {}
    for name in SPLITS:
        members = [row for row, split in enumerate(splits) if split == name]
        parts[name] = Split(rows.latents[members], rows.labels[members], [rows.ids[row] for row in members])
    return write_store(out, parts, rows.schema, generator.fingerprint, source or {}, generator.statistics)


class _Encoding(nn.Module):
    """Images (B, 3, H, W) uint8 to latents and empty labels."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = in_range(pixels)
        return self.generator.encode(images), images.new_zeros(len(images), 0)


class _Drawing(nn.Module):
    """Row numbers (B,) to drawn latents and the labels of their images."""

    def __init__(self, generator: Generator, judge: AttributeJudge, seed: int) -> None:
        super().__init__()
        self.generator, self.judge, self.seed = generator, judge, seed

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.generator.latents_of(self.seed, rows).to(rows.device)
        noise = self.generator.noise_of(self.seed, rows, latents)
        outputs = self.judge(self.generator.decode(latents, noise))
        return latents, _within(self.judge.schema.predict(outputs), self.judge.schema)


def _within(labels: Tensor, schema: AttributeSchema) -> Tensor:
    """Labels (B, A) with continuous values clamped to their ranges."""
    columns = [
        values.clamp(a.low, a.high) if a.kind == "continuous" else values
        for a, values in zip(schema, labels.unbind(1), strict=True)
    ]
    return torch.stack(columns, 1)


def _owner(generator: Generator) -> dict[str, str]:
    settings = generator.settings | {"latent_shape": generator.latent_shape}
    return {"generator weights": generator.fingerprint, "generator settings": str(settings)}


def _annotation(images: AnnotatedImages) -> str:
    """A hash of the labels, their names and the splits."""
    words = json.dumps([images.schema.to_json(), images.splits]).encode()
    return hashlib.sha256(words + images.labels.numpy().tobytes()).hexdigest()


def _refuse_no_train(ids: Sequence[str], splits: Sequence[str] | None) -> None:
    if "train" not in (splits or hash_splits(ids)):
        raise UserError(f"none of the {len(ids)} rows is in the train split; give more rows or another partition")

"""From images, or a generator's own samples, to a latent store; an interrupted run goes on where it stopped."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.distributed import UnpaddedSampler
from lcg_lightning.data.images import AnnotatedImages, AnnotatedLatents, ImageFiles, stamp
from lcg_lightning.data.rows import SPLITS, hash_splits
from lcg_lightning.data.shards import Shards, ShardWriter
from lcg_lightning.data.store import Split, write_store
from lcg_lightning.diffusion.noise import generator_of
from lcg_lightning.errors import UserError
from lcg_lightning.files import refuse_occupied
from lcg_lightning.generators.base import Generator
from lcg_lightning.judges.load import AttributeJudge, refuse_size


class Loop(TypedDict, total=False):
    """How rows are worked through."""

    batch_size: int
    """Rows in a batch, per process; 64 by default."""
    shard_batches: int
    """Batches between two writes; 8 by default."""
    num_workers: int
    """Processes that read image files, per process; 0 by default."""
    accelerator: str
    """As in Lightning's Trainer; "auto" by default."""
    devices: int
    """Number of processes, one per device; 1 by default."""
    strategy: Literal["auto", "ddp", "ddp_spawn"]
    """As in Lightning's Trainer; "auto" by default."""


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

    Finished rows are kept in ``<out>.partial`` until the store is complete. Running the same call again after
    an interruption, on any number of processes, encodes only the others; a process that is killed outright
    loses at most its last ``shard_batches`` batches. The store depends neither on the number of processes nor
    on interruptions.

    Args:
        images: files, labels and splits.
        generator: a generator with an encoder.
        out: folder of the store to make.
        source: what the store's record says of where the images come from.
        resize: scale square images to the generator's size instead of refusing them.
        loop: how to work through them.

    Raises:
        UserError: ``out`` is there and not empty; the partial folder belongs to other images or another
            generator; an image that cannot be read or is of another size; a latent that is not finite.
    """
    out = Path(out)
    if not generator.can("encode"):
        generator.encode(torch.zeros(0))  # says why not
    _check(out, images.ids, images.splits)
    names = hashlib.sha256("\n".join(images.ids).encode()).hexdigest()[:16]
    owner = _owner(generator) | {"image names": names}
    shards = Shards(_partial(out), torch.tensor([stamp(ref) for ref in images.paths]), owner)
    files = ImageFiles(images.paths, generator.image_size, resize=resize)
    trainer = _work(shards, _Encoding(generator), files, images.ids, generator.latent_shape, loop)
    if trainer.is_global_zero:
        latents, _ = shards.merge()
        found = AnnotatedLatents(images.ids, images.labels, images.schema, images.splits, latents=latents)
        store(found, generator, out, source=source)
    return _finish(trainer, shards, out)


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
    """Draw latents from the generator's own distribution and label them by their images, as StyleFlow and LACE did.

    Row i depends on the seed and i alone. Interruptions and processes are as in :func:`encode`.

    Args:
        n: rows to draw.
        judge: what labels the images; its attributes become the store's.
        generator: a generator that can sample.
        out: folder of the store to make.
        seed: of the draws.
        source: what the store's record says of where the rows come from.
        loop: how to work through them.

    Raises:
        UserError: ``out`` is there and not empty, the generator cannot sample, or the judge takes other images.
    """
    out, ids = Path(out), [f"{i:06d}" for i in range(n)]
    if not generator.can("sample_latents"):
        generator.sample_latents(0, torch.Generator())  # says why not
    _check(out, ids, None)
    refuse_size(judge, generator.image_size)
    owner = _owner(generator) | {"labels": judge.fingerprint, "seed": str(seed)}
    shards = Shards(_partial(out), torch.zeros(n, 2, dtype=torch.int64), owner)
    drawing = _Drawing(generator, judge, seed)
    trainer = _work(shards, drawing, torch.arange(n), ids, generator.latent_shape, loop)  # type: ignore[arg-type]
    if trainer.is_global_zero:
        latents, labels = shards.merge()
        store(AnnotatedLatents(ids, labels, judge.schema, latents=latents), generator, out, source=source)
    return _finish(trainer, shards, out)


def store(
    rows: AnnotatedLatents, generator: Generator, out: str | Path, *, source: Mapping[str, Any] | None = None
) -> Path:
    """Write labelled latents of a generator into a store, standardized by the generator's own statistics if it has any.

    Raises:
        UserError: ``out`` is there and not empty, or a latent or label that cannot be stored.
    """
    splits = rows.splits or hash_splits(rows.ids)
    parts = {}
    for name in SPLITS:
        members = [row for row, split in enumerate(splits) if split == name]
        parts[name] = Split(rows.latents[members], rows.labels[members], [rows.ids[row] for row in members])
    return write_store(out, parts, rows.schema, generator.fingerprint, source or {}, generator.statistics)


class _Encoding(nn.Module):
    """Images (B, 3, H, W) to latents, and no labels."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.generator.encode(images), images.new_zeros(len(images), 0)


class _Drawing(nn.Module):
    """Row numbers (B,) to drawn latents and the labels of their images."""

    def __init__(self, generator: Generator, judge: AttributeJudge, seed: int) -> None:
        super().__init__()
        self.generator, self.judge, self.seed = generator, judge, seed

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        draws = [self.generator.sample_latents(1, generator_of(self.seed, row)) for row in rows.tolist()]
        latents = torch.cat(draws).to(rows.device)
        noise = self.generator.noise_of(self.seed, rows, latents)
        outputs = self.judge(self.generator.decode(latents, noise))
        return latents, _within(self.judge.schema.predict(outputs), self.judge.schema)


def _within(labels: Tensor, schema: AttributeSchema) -> Tensor:
    """Labels (B, A) with predicted numbers moved to the ends of their ranges where they lie beyond."""
    columns = [
        values.clamp(a.low, a.high) if a.kind == "continuous" else values
        for a, values in zip(schema, labels.unbind(1), strict=True)
    ]
    return torch.stack(columns, 1)


class _Module(LightningModule):
    """Runs a frozen network over rows of a data set."""

    def __init__(self, network: nn.Module, data: Dataset[Tensor], rows: Sequence[int], loop: Loop) -> None:
        super().__init__()
        self.network, self.data, self.rows, self.loop = network, data, rows, loop
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than batches left

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """This process's share of the rows; batches are the same on any number of processes."""
        size = self.loop.get("batch_size", 64)
        sampler = UnpaddedSampler(self.rows, self.trainer.world_size, self.trainer.global_rank, size)
        return DataLoader(self.data, batch_size=size, sampler=sampler, num_workers=self.loop.get("num_workers", 0))

    def predict_step(self, batch: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Latents (B, *latent_shape) and labels (B, A)."""
        out: tuple[Tensor, Tensor] = self.network(batch)
        return out


def _work(
    shards: Shards,
    network: nn.Module,
    data: Dataset[Tensor],
    ids: Sequence[str],
    latent_shape: tuple[int, ...],
    loop: Loop,
) -> Trainer:
    """Makes the rows that are not finished."""
    trainer = Trainer(
        accelerator=loop.get("accelerator", "auto"),
        devices=loop.get("devices", 1),
        strategy=loop.get("strategy", "auto"),
        callbacks=[ShardWriter(shards, ids, latent_shape, loop.get("shard_batches", 8))],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    if rows := shards.unfinished():
        try:
            trainer.predict(_Module(network, data, rows, loop), return_predictions=False)
        except UserError as error:  # a worker process wraps it in its traceback
            raise UserError(str(error).rstrip().rsplit("UserError: ", 1)[-1]) from None
    return trainer


def _finish(trainer: Trainer, shards: Shards, out: Path) -> Path:
    """Removes the shards of a store that is written, and waits until all processes can read it."""
    if trainer.is_global_zero:
        shutil.rmtree(shards.folder)
    trainer.strategy.barrier()
    return out


def _owner(generator: Generator) -> dict[str, str]:
    settings = generator.settings | {"latent_shape": generator.latent_shape}
    return {"generator weights": generator.fingerprint, "generator settings": str(settings)}


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def _check(out: Path, ids: Sequence[str], splits: Sequence[str] | None) -> None:
    if "train" not in (splits or hash_splits(ids)):
        raise UserError(f"none of the {len(ids)} rows is in the train split; give more rows or another partition")
    refuse_occupied(out)

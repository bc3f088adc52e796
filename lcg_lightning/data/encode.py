"""From images to a latent store, on any number of processes; an interrupted run goes on where it stopped."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from lcg_lightning.data.celebahq import AnnotatedImages, ImageFiles
from lcg_lightning.data.sampler import UnpaddedSampler
from lcg_lightning.data.store import SPLITS, Split, check_finite, hash_splits, refuse_occupied, write_store
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator


class Shards:
    """The folder of finished rows that an unfinished encoding leaves beside its output.

    Each file holds ``rows`` (n,) int64, places in the list of images, their ``latents`` (n, *shape) float32,
    and ``stamps`` (n, 2) int64, size and time of the image files. They appear complete or not at all, and may
    come from any number of processes. A row counts as finished while its image file stays as it was.
    """

    def __init__(self, folder: Path, images: AnnotatedImages, generator: Generator) -> None:
        """Make the folder for these images and this generator, or go on with one that was made for them.

        Raises:
            UserError: it was made for others, or an image file is gone.
        """
        self.folder = folder
        self.latent_shape = generator.latent_shape
        try:
            stats = [path.stat() for path in images.paths]
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read ({error.strerror}); restore the file") from None
        self.stamps = torch.tensor([(s.st_size, s.st_mtime_ns) for s in stats])
        names = hashlib.sha256("\n".join(images.ids).encode()).hexdigest()[:16]
        owner = {"generator weights": generator.fingerprint, "image names": names}
        manifest = folder / "manifest.json"
        if not manifest.exists():
            refuse_occupied(folder)
            folder.mkdir(parents=True, exist_ok=True)
            temporary = manifest.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(owner), encoding="utf-8")
            os.replace(temporary, manifest)
        found = json.loads(manifest.read_text(encoding="utf-8"))
        other = [key for key in owner if found[key] != owner[key]]
        if other:
            raise UserError(f"{folder} was begun with other {other[0]}; finish that run or remove the folder")

    def write(self, rows: Sequence[int], latents: Tensor) -> None:
        """Add finished rows and their latents (n, *latent_shape)."""
        file = self.folder / f"{uuid.uuid4().hex}.safetensors"
        temporary = file.with_suffix(".writing")
        index = torch.tensor(rows)
        save_file({"rows": index, "latents": latents, "stamps": self.stamps[index]}, temporary)
        os.replace(temporary, file)

    def read(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The finished (rows, latents) of each file; damaged files are left out."""
        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(file, "pt") as tensors:
                    rows, latents, stamps = (tensors.get_tensor(key) for key in ("rows", "latents", "stamps"))
            except (OSError, SafetensorError):
                continue
            valid = (self.stamps[rows] == stamps).all(1)
            yield rows[valid], latents[valid]

    def unfinished(self) -> list[int]:
        """The rows that are still to be encoded, in order."""
        todo = torch.ones(len(self.stamps), dtype=torch.bool)
        for rows, _ in self.read():
            todo[rows] = False
        return todo.nonzero().flatten().tolist()

    def merge(self) -> Tensor:
        """The latents (N, *latent_shape) of all images.

        Raises:
            UserError: some are not encoded.
        """
        if todo := self.unfinished():
            raise UserError(f"{len(todo)} of {len(self.stamps)} images are not encoded yet; run the same command again")
        latents = torch.empty(len(self.stamps), *self.latent_shape)
        for rows, part in self.read():
            latents[rows] = part
        return latents


class ShardWriter(BasePredictionWriter):
    """Writes what ``predict_step`` returns to shards, every few batches and when the run ends or fails."""

    def __init__(self, shards: Shards, ids: Sequence[str], every: int) -> None:
        super().__init__("batch")
        self.shards = shards
        self.ids = ids
        self.every = every
        self._rows: list[int] = []
        self._latents: list[Tensor] = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Tensor,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep a batch of latents (B, *latent_shape) of the images at ``batch_indices``."""
        assert batch_indices is not None
        latents = prediction.detach().float().cpu()
        expected = (len(batch_indices), *self.shards.latent_shape)
        if latents.shape != expected:
            raise UserError(f"the generator encodes to shape {tuple(latents.shape)}, but its latents are {expected}")
        check_finite(latents, [self.ids[row] for row in batch_indices])
        self._rows += batch_indices
        self._latents.append(latents)
        if len(self._latents) == self.every:
            self._flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rest, and wait for the other processes to do so."""
        self._flush()
        trainer.strategy.barrier()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what is finished before the run ends."""
        self._flush()

    def _flush(self) -> None:
        if self._rows:
            self.shards.write(self._rows, torch.cat(self._latents))
            self._rows, self._latents = [], []


class EncodeModule(LightningModule):
    """Encodes image files with a frozen generator.

    Args:
        generator: the encoder.
        images: the files; a row is a place among them.
        rows: the rows to encode.
        batch_size: images in a batch, per process.
        num_workers: processes that read image files, per process.
    """

    def __init__(
        self, generator: Generator, images: ImageFiles, rows: Sequence[int], batch_size: int, num_workers: int
    ) -> None:
        super().__init__()
        self.generator = generator
        self.images = images
        self.rows = rows
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than batches left

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """This process's share of the images; batches are the same on any number of processes."""
        sampler = UnpaddedSampler(self.rows, self.trainer.world_size, self.trainer.global_rank, self.batch_size)
        return DataLoader(self.images, batch_size=self.batch_size, sampler=sampler, num_workers=self.num_workers)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Latents (B, *latent_shape) of images (B, 3, H, W)."""
        return self.generator.encode(batch)


def encode(
    images: AnnotatedImages,
    generator: Generator,
    out: str | Path,
    splits: Sequence[str] | None = None,
    *,
    source: Mapping[str, Any] | None = None,
    resize: bool = False,
    batch_size: int = 64,
    shard_batches: int = 8,
    num_workers: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    strategy: Literal["auto", "ddp", "ddp_spawn"] = "auto",
) -> Path:
    """Encode images into a latent store.

    Finished rows are kept in ``<out>.partial`` until the store is complete. Running the same call again after
    an interruption, on any number of processes, encodes only the others; a process that is killed outright
    loses at most its last ``shard_batches`` batches. The store depends neither on the number of processes nor
    on interruptions.

    Args:
        images: files and labels.
        generator: a generator with an encoder.
        out: folder of the store to make.
        splits: "train", "val" or "test" for each image; by default a hash of the id, 80 : 10 : 10.
        source: what the store's record says of where the images come from.
        resize: scale square images to the generator's size instead of refusing them.
        batch_size: images in a batch, per process.
        shard_batches: batches between two writes.
        num_workers: processes that read image files, per process.
        accelerator: as in Lightning's Trainer.
        devices: number of processes, one per device.
        strategy: as in Lightning's Trainer.

    Raises:
        UserError: ``out`` is there and not empty; the partial folder belongs to other images or another
            generator; an image that cannot be read or is of another size; a latent that is not finite.
    """
    out = Path(out)
    splits = hash_splits(images.ids) if splits is None else splits
    if len(splits) != len(images.ids) or not set(splits) <= set(SPLITS) or "train" not in splits:
        raise UserError(f"splits must name {', '.join(SPLITS)} once per image, with at least one train")
    refuse_occupied(out)
    shards = Shards(out.with_name(f"{out.name}.partial"), images, generator)
    files = ImageFiles(images.paths, generator.image_size, resize=resize)
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        callbacks=[ShardWriter(shards, images.ids, shard_batches)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    rows = shards.unfinished()
    if rows:
        module = EncodeModule(generator, files, rows, batch_size, num_workers)
        try:
            trainer.predict(module, return_predictions=False)
        except UserError as error:  # a worker process wraps it in its traceback
            raise UserError(str(error).rstrip().rsplit("UserError: ", 1)[-1]) from None
    if trainer.is_global_zero:
        latents = shards.merge()
        parts = {}
        for name in SPLITS:
            members = [row for row, split in enumerate(splits) if split == name]
            parts[name] = Split(latents[members], images.labels[members], [images.ids[row] for row in members])
        write_store(out, parts, images.schema, generator.fingerprint, source or {})
        shutil.rmtree(shards.folder)
    trainer.strategy.barrier()
    return out

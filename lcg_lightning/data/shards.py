"""Finished rows of an unfinished encoding, kept beside its output so that an interrupted run can be resumed."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lcg_lightning.data.place import PUBLISHED, partial
from lcg_lightning.data.rows import check_finite
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.files import (
    atomic,
    atomic_folder,
    load_json,
    refuse_occupied,
    rename_folder,
)


class Shards:
    """A folder of finished rows.

    Each file holds ``rows`` (n,) int64, the positions in the data set; their ``latents`` (n, *shape) and ``labels``
    (n, A), float32; and ``stamps`` (n, 2) int64, the size and time of their sources. Files are written atomically, by
    any number of processes. A row counts as finished as long as its source is unchanged.

    When all rows are finished, :meth:`publish` makes the store and moves it to its place. A run that is killed at any
    moment can be restarted: either the place is still free, or ``published.json`` records that it was filled.
    """

    def __init__(self, out: Path, stamps: Tensor, owner: Mapping[str, str], annotation: str = "") -> None:
        """Make the folder ``<out>.partial``, or continue with one that was made for the same rows.

        Args:
            out: folder of the final store.
            stamps: (N, 2) int64, stamps of the rows' sources.
            owner: everything that the rows depend on, by name.
            annotation: a hash of the rest of the store's content.

        Raises:
            UserError: the folder was made for other rows or cannot be made, or ``out`` exists and is not empty.
        """
        self.out, self.folder, self.stamps = out, partial(out), stamps
        whole = json.dumps(dict(owner), sort_keys=True).encode() + stamps.numpy().tobytes() + annotation.encode()
        self.run = hashlib.sha256(whole).hexdigest()
        self.published = self._published()
        if self.published:
            return
        refuse_occupied(out)
        manifest = self.folder / "manifest.json"
        if not manifest.exists():
            try:
                with atomic_folder(self.folder) as part:
                    (part / manifest.name).write_text(json.dumps(owner), encoding="utf-8")
            except UserError:
                if not manifest.exists():  # another process of this run may have made it just now
                    raise
        try:
            found = load_json(manifest)
        except UserError:
            raise UserError(f"{manifest} is damaged; remove {self.folder} and begin again") from None
        other = [key for key in owner if found.get(key) != owner[key]]
        if other:
            raise UserError(f"{self.folder} was started with other {other[0]}; finish that run or remove the folder")

    def _published(self) -> bool:
        """Whether an earlier run of the same rows was stopped after it filled ``out``."""
        mark = self.folder / PUBLISHED
        if not mark.exists() or not (self.out / "store.json").exists():
            return False
        found = load_json(mark)
        return bool(found == {"run": self.run, "content": LatentStore.open(self.out).content_hash})

    def publish(self, write: Callable[[Path], Path]) -> None:
        """Write a store of the finished rows and move it to its place.

        Args:
            write: writes the store to the given folder.

        Raises:
            UserError: the place has been filled in the meantime, or the disk is full.
        """
        made = self.folder / "store"
        shutil.rmtree(made, ignore_errors=True)  # left by a run that was killed here
        content = LatentStore.open(write(made)).content_hash
        with atomic(self.folder / PUBLISHED) as file:
            file.write_text(json.dumps({"run": self.run, "content": content}), encoding="utf-8")
        rename_folder(made, self.out)

    def remove(self) -> None:
        """Remove the folder; the record that its rows are published is removed last."""
        for file in self.folder.glob("*"):
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name != PUBLISHED:
                file.unlink()
        last = self.folder.rename(self.folder.with_name(f".{uuid.uuid4().hex}"))
        shutil.rmtree(last)

    def write(self, rows: Sequence[int], latents: Tensor, labels: Tensor) -> None:
        """Add finished rows, their latents (n, *shape) and labels (n, A)."""
        index = torch.tensor(rows)
        tensors = {"rows": index, "latents": latents, "labels": labels, "stamps": self.stamps[index]}
        with atomic(self.folder / f"{uuid.uuid4().hex}.safetensors") as file:
            save_file({key: value.contiguous() for key, value in tensors.items()}, file)

    def read(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The finished (rows, latents, labels) of each file; damaged files are left out."""
        for file in sorted(self.folder.glob("[!.]*.safetensors")):
            try:
                with safe_open(file, "pt") as tensors:
                    rows, latents, labels, stamps = (
                        tensors.get_tensor(key) for key in ("rows", "latents", "labels", "stamps")
                    )
            except (OSError, SafetensorError):
                continue
            valid = rows < len(self.stamps)
            valid[valid.clone()] = (self.stamps[rows[valid]] == stamps[valid]).all(1)
            yield rows[valid], latents[valid], labels[valid]

    def unfinished(self) -> list[int]:
        """The unfinished rows, in order."""
        todo = torch.ones(len(self.stamps), dtype=torch.bool)
        for rows, _, _ in self.read():
            todo[rows] = False
        return todo.nonzero().flatten().tolist()

    def merge(self) -> tuple[Tensor, Tensor]:
        """The latents (N, *shape) and labels (N, A) of all rows.

        Raises:
            UserError: some rows are unfinished.
        """
        if todo := self.unfinished():
            raise UserError(f"{len(todo)} of {len(self.stamps)} rows are not encoded yet; run the same command again")
        merged: list[Tensor] = []
        for rows, *parts in self.read():
            merged = merged or [part.new_empty(len(self.stamps), *part.shape[1:]) for part in parts]
            for whole, part in zip(merged, parts, strict=True):
                whole[rows] = part
        latents, labels = merged
        return latents, labels


class ShardWriter(BasePredictionWriter):
    """Writes what ``predict_step`` returns to shards, every few batches and when the run ends or fails.

    Args:
        shards: the shards to write to.
        ids: names of the rows, for messages.
        latent_shape: expected shape of a latent.
        every: batches between two writes.
    """

    def __init__(self, shards: Shards, ids: Sequence[str], latent_shape: tuple[int, ...], every: int) -> None:
        super().__init__("batch")
        self.shards, self.ids, self.latent_shape, self.every = shards, ids, latent_shape, every
        self._rows: list[int] = []
        self._parts: list[tuple[Tensor, Tensor]] = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: tuple[Tensor, Tensor],
        batch_indices: Sequence[int] | None,
        batch: Tensor,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the latents (B, *shape) and labels (B, A) of the rows at ``batch_indices``."""
        assert batch_indices is not None
        latents, labels = (part.detach().float().cpu() for part in prediction)
        expected = (len(batch_indices), *self.latent_shape)
        if latents.shape != expected:
            raise UserError(f"the generator encodes to shape {tuple(latents.shape)}, but its latents are {expected}")
        check_finite(latents, [self.ids[row] for row in batch_indices])
        self._rows += batch_indices
        self._parts.append((latents, labels))
        if len(self._parts) == self.every:
            self._flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rest, and wait for the other processes to do the same."""
        self._flush()
        trainer.strategy.barrier()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what is finished before the run ends."""
        self._flush()

    def _flush(self) -> None:
        if self._rows:
            latents, labels = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
            self.shards.write(self._rows, latents, labels)
            self._rows, self._parts = [], []

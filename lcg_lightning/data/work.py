"""Processes rows on any number of processes and makes a store of them; an interrupted run can be resumed."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lcg_lightning.data.distributed import UnpaddedSampler, refuse_miscounted
from lcg_lightning.data.shards import Shards, ShardWriter
from lcg_lightning.devices import upload
from lcg_lightning.errors import UserError
from lcg_lightning.files import held

Batch = NDArray[Any]


class Loop(TypedDict, total=False):
    """Options for processing rows."""

    batch_size: int
    """Rows in a batch, per process; 64 by default."""
    shard_batches: int
    """Batches between two writes; 8 by default."""
    num_workers: int | None
    """Processes that read image files, per process; by default as many as cores are left, at most 4, and none for a
    single batch."""
    accelerator: str
    """As in Lightning's Trainer; "auto" by default."""
    devices: int
    """Number of processes on a machine, one per device; 1 by default."""
    num_nodes: int
    """Number of machines; 1 by default."""
    strategy: Literal["auto", "ddp", "ddp_spawn"]
    """As in Lightning's Trainer; "auto" by default."""


def work(
    shards: Shards,
    network: nn.Module,
    read: Callable[[list[int]], Batch],
    ids: Sequence[str],
    latent_shape: tuple[int, ...],
    write: Callable[[Path, Tensor, Tensor], Path],
    loop: Loop,
) -> Path:
    """Make the unfinished rows, then the store, and remove the shards.

    Args:
        shards: the finished rows.
        network: maps what ``read`` gives to latents (B, *latent_shape) and labels (B, A).
        read: gives the network's input (B, ...) for rows.
        ids: names of the rows, for messages.
        latent_shape: expected shape of a latent.
        write: writes a store of all latents (N, *latent_shape) and labels (N, A) to the given folder.
        loop: options for processing rows.

    Raises:
        UserError: another run is writing there, a row cannot be made, or a folder cannot be written.
    """
    trainer = Trainer(
        accelerator=loop.get("accelerator", "auto"),
        devices=loop.get("devices", 1),
        num_nodes=loop.get("num_nodes", 1),
        strategy=loop.get("strategy", "auto"),
        callbacks=[ShardWriter(shards, ids, latent_shape, loop.get("shard_batches", 8))],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    refuse_miscounted(trainer)
    rows = [] if shards.published else shards.unfinished()
    with held(shards.folder) if trainer.is_global_zero else nullcontext():
        if rows or trainer.world_size > 1:  # several processes meet here before the first removes anything
            try:
                trainer.predict(_Rows(network, read, rows, loop), return_predictions=False)
            except UserError as error:  # a worker process wraps it in its traceback
                raise UserError(str(error).rstrip().rsplit("UserError: ", 1)[-1]) from None
        if trainer.is_global_zero:
            if not shards.published:
                latents, labels = shards.merge()
                shards.publish(lambda folder: write(folder, latents, labels))
            shards.remove()
        trainer.strategy.barrier()  # until all processes can read the store
    return shards.out


class _Rows(LightningModule):
    """Runs a frozen network over rows of a data set."""

    def __init__(self, network: nn.Module, read: Callable[[list[int]], Batch], rows: Sequence[int], loop: Loop) -> None:
        super().__init__()
        self.network, self.read, self.rows, self.loop = network, read, rows, loop
        self.allow_zero_length_dataloader_with_multiple_devices = True  # there may be more processes than batches

    def predict_dataloader(self) -> DataLoader[Batch]:
        """This process's share of the rows; batches are the same on any number of processes."""
        size = self.loop.get("batch_size", 64)
        sampler = UnpaddedSampler(self.rows, self.trainer.world_size, self.trainer.global_rank, size)
        workers = self.loop.get("num_workers")
        if workers is None:
            spare = (os.cpu_count() or 1) // self.trainer.num_devices - 1
            workers = max(0, min(4, spare, -(-len(sampler) // size) - 1))
        data = _Inputs(self.read, len(self.rows))
        return DataLoader(data, batch_size=size, sampler=sampler, num_workers=workers, collate_fn=_as_read)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Latents (B, *latent_shape) and labels (B, A)."""
        out: tuple[Tensor, Tensor] = self.network(upload(torch.from_numpy(batch), self.device))
        return out


class _Inputs(Dataset[Batch]):
    """Reads whole batches. A worker sends an array through a pipe; a tensor would take scarce shared memory."""

    def __init__(self, read: Callable[[list[int]], Batch], count: int) -> None:
        self.read, self.count = read, count

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, rows: list[int]) -> Batch:
        return self.read(rows)


def _as_read(batch: Any) -> Any:
    return batch

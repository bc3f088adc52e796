"""Standardized latents with their labels, in batches, for training and testing."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DistributedSampler

from lcg_lightning.data.distributed import UnpaddedSampler
from lcg_lightning.data.space import standardize
from lcg_lightning.data.store import LatentStore
from lcg_lightning.devices import upload
from lcg_lightning.errors import UserError


class LatentBatch(TypedDict):
    """One batch of a store's split."""

    latents: Tensor
    """(B, D) float32, standardized and flat."""
    labels: Tensor
    """(B, A) float32 in natural units, NaN where unknown."""
    index: Tensor
    """(B,) int64, row in the split, independent of the batch size and the number of processes."""


class LatentLoader:
    """Batches of one split by tensor indexing: no workers and no collation.

    It is not a ``DataLoader``, so Lightning leaves its sampler alone; it still calls ``sampler.set_epoch``.
    """

    batch_sampler = None  # Lightning reads it in addition to ``sampler``

    def __init__(
        self,
        store: LatentStore,
        split: str,
        sampler: DistributedSampler[int],
        batch_size: int,
        *,
        full: bool = False,
        begun: Callable[[], int] = lambda: 0,
    ) -> None:
        """Reads ``split`` in ``sampler``'s order.

        Args:
            store: the store.
            split: name of the split.
            sampler: the order of the rows.
            batch_size: rows in a batch.
            full: drop a short last batch that follows full ones.
            begun: number of this epoch's batches that an interrupted run has used already.
        """
        self.store = store
        self.latents, self.labels, _ = store.split(split)
        self.sampler = sampler
        self.batch_size = batch_size
        self.full = full and len(sampler) >= batch_size
        self.begun = begun

    def __len__(self) -> int:
        batches = len(self.sampler) / self.batch_size
        return math.floor(batches) if self.full else math.ceil(batches)

    def __iter__(self) -> Iterator[LatentBatch]:
        order = torch.tensor(list(self.sampler), dtype=torch.int64)
        for index in torch.split(order, self.batch_size)[self.begun() : len(self)]:
            latents = standardize(self.latents[index], self.store.mean, self.store.std)
            yield {"latents": latents, "labels": self.labels[index], "index": index}

    def state_dict(self) -> dict[str, Any]:
        """Empty, since the trainer counts the batches; Lightning calls loaders with this method resumable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


class LatentDataModule(LightningDataModule):
    """The latents of a store, standardized by its train split.

    The order of training rows depends only on (``seed``, epoch), so a resumed run sees the same order as an
    uninterrupted one. Testing, and validation outside a fit, visit each row exactly once over all processes.

    Args:
        store: folder of a latent store.
        batch_size: rows in a batch, per process.
        seed: seed of the order of training rows.

    Raises:
        UserError: ``store`` is not a latent store, or batch_size is below 1.
    """

    def __init__(self, store: str | Path, batch_size: int = 256, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        self.store = LatentStore.open(store)
        self.batch_size = batch_size
        self.seed = seed
        self.allow_zero_length_dataloader_with_multiple_devices = True  # there may be more processes than test rows

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent as the generator takes it."""
        return self.store.latent_shape

    @property
    def latent_dim(self) -> int:
        """Width D of the flat latents in a batch."""
        return math.prod(self.store.latent_shape)

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """The label columns, as :meth:`AttributeSchema.to_json` writes them."""
        return self.store.schema.to_json()

    def train_dataloader(self) -> LatentLoader:
        """Shuffled batches of the train split, all full unless the split is smaller than one batch."""
        shuffle = not getattr(self.trainer, "overfit_batches", 0)  # overfitting needs the same batches every epoch
        return self._loader("train", padded=True, shuffle=shuffle, full=True, begun=self._begun)

    def val_dataloader(self) -> LatentLoader | list[LatentLoader]:
        """Batches of the val split; none if the store has no such split and the run is a fit."""
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if fitting and "val" not in self.store.sizes:
            return []
        return self._loader("val", padded=fitting)

    def test_dataloader(self) -> LatentLoader:
        """Batches of the test split, or of the ``split`` that the module under test names."""
        module = None if self.trainer is None else self.trainer.lightning_module
        return self._loader(getattr(module, "split", "test"), padded=False)

    def transfer_batch_to_device(self, batch: LatentBatch, device: torch.device, dataloader_idx: int) -> LatentBatch:
        """The batch on a device, by way of pinned memory, so that training does not wait for the copy."""
        latents, labels, index = (upload(batch[key], device) for key in ("latents", "labels", "index"))
        return {"latents": latents, "labels": labels, "index": index}

    def _begun(self) -> int:
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    def _loader(self, split: str, *, padded: bool, shuffle: bool = False, **options: Any) -> LatentLoader:
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        rows = range(self.store.sizes.get(split, 0))
        sampler: DistributedSampler[int] = (
            DistributedSampler(rows, world, rank, shuffle=shuffle, seed=self.seed)  # type: ignore[arg-type]
            if padded
            else UnpaddedSampler(rows, world, rank)
        )
        return LatentLoader(self.store, split, sampler, self.batch_size, **options)

"""Distribution of rows over processes without duplicates, and a check that the processes are counted right."""

import os
from collections.abc import Iterator, Sequence
from typing import cast

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from torch.utils.data import Dataset, DistributedSampler

from lcg_lightning.errors import UserError


class UnpaddedSampler(DistributedSampler[int]):
    """One process's share of the rows, in order; over all processes, each row occurs exactly once.

    The usual sampler repeats rows until all processes have equally many, which biases metrics. This one lets shares
    differ by up to one block. Lightning keeps a ``DistributedSampler`` that it is given, so it adds no padding. Blocks
    of the batch size keep the rows of a batch together for any number of processes, which makes float32 results equal
    to the last bit. Blocks of one row balance the work best.
    """

    def __init__(self, rows: Sequence[int], num_replicas: int, rank: int, block: int = 1) -> None:
        """Deals ``rows`` to the processes in turn, in blocks of ``block`` rows."""
        super().__init__(cast(Dataset[int], rows), num_replicas, rank, shuffle=False)
        starts = range(rank * block, len(rows), num_replicas * block)
        self.share = [row for start in starts for row in rows[start : start + block]]
        self.num_samples = len(self.share)
        self.total_size = len(rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)


def refuse_miscounted(trainer: Trainer) -> None:
    """Check that a trainer counts the processes that torchrun or SLURM has started.

    Each process of a trainer that counts one would do the whole work, and write over the others' files.

    Raises:
        UserError: it counts others.
    """
    for name, environment, count in (
        ("torchrun", TorchElasticEnvironment, "WORLD_SIZE"),
        ("SLURM", SLURMEnvironment, "SLURM_NTASKS"),
    ):
        if environment.detect():
            started, counted = int(os.environ.get(count, 1)), trainer.num_nodes * trainer.num_devices
            if started != counted:
                raise UserError(
                    f"{name} started {started} processes, but num_nodes x devices is {trainer.num_nodes} x "
                    f"{trainer.num_devices}; give the numbers of nodes and of processes on each"
                )
            return

"""Distribution of rows over processes without duplicates."""

from collections.abc import Iterator, Sequence
from typing import cast

from torch.utils.data import Dataset, DistributedSampler


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

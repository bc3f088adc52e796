"""Which rows a process works on when no row may be seen twice."""

from collections.abc import Iterator, Sequence
from typing import cast

from torch.utils.data import Dataset, DistributedSampler


class UnpaddedSampler(DistributedSampler[int]):
    """One process's share of some rows: over all processes each row comes once, in order, none repeated.

    The usual sampler repeats rows until every process has as many, which biases metrics. This one leaves the
    shares uneven by up to one block. Lightning keeps a ``DistributedSampler`` it is given, so no padding
    comes back in. Blocks of the batch size keep the rows of a batch together however many processes there
    are, which makes float32 results the same to the last bit; blocks of one row share the work most evenly.
    """

    def __init__(self, rows: Sequence[int], num_replicas: int, rank: int, block: int = 1) -> None:
        """Share out ``rows``, in blocks of ``block`` rows dealt to the processes in turn."""
        super().__init__(cast(Dataset[int], rows), num_replicas, rank, shuffle=False)
        starts = range(rank * block, len(rows), num_replicas * block)
        self.share = [row for start in starts for row in rows[start : start + block]]
        self.num_samples = len(self.share)
        self.total_size = len(rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

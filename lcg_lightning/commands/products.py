"""Matrix products in float32 on a CPU, by the faster of PyTorch's two libraries."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_CPU = Path("/proc/cpuinfo")


@contextmanager
def faster_products() -> Iterator[None]:
    """Within the block, has oneDNN multiply float32 matrices on AMD's CPUs, where MKL leaves out AVX-512.

    That is twice as fast from 64 rows on. PyTorch hands matrices over only if it may reduce the precision, so this asks
    for that. oneDNN does reduce it where a CPU has units for matrices of bfloat16, and then, as beside a GPU or with a
    precision chosen already, all stays as it was.
    """
    if (
        torch.cuda.is_available()
        or torch.get_float32_matmul_precision() != "highest"
        or not _CPU.exists()
        or "AuthenticAMD" not in _CPU.read_text()
    ):
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        fine = torch.full((256, 256), 1 + 2**-20)  # rounds to 1 in bfloat16 and in TF32
        if not torch.equal(fine @ torch.eye(256), fine):
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_float32_matmul_precision("highest")

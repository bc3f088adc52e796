"""How float32 products are computed: on a GPU, and by the faster of PyTorch's two libraries on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_CPU = Path("/proc/cpuinfo")


@contextmanager
def faster_products(fitting: bool = False) -> Iterator[None]:
    """Within the block, float32 products are as fast as their purpose allows; a precision chosen already stays.

    On a GPU, a fit multiplies in TF32, which GPUs have from Ampere on. Its factors have 10 bits, and a batch's gradient
    is noisier than that. All else keeps float32, also in convolutions, for which PyTorch would take TF32, so that
    latents and figures differ from those of a CPU by rounding alone.

    On AMD's CPUs, where MKL leaves out AVX-512, oneDNN multiplies. That is twice as fast from 64 rows on. PyTorch hands
    matrices over only if it may reduce the precision, so this asks for that. oneDNN does reduce it where a CPU has
    units for matrices of bfloat16, and then all stays as it was.
    """
    chosen = torch.get_float32_matmul_precision() != "highest"
    if not chosen and torch.cuda.is_available():
        before = torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if fitting else "highest")
        torch.backends.cudnn.allow_tf32 = fitting
        try:
            yield
        finally:
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = before
    elif not chosen and _CPU.exists() and "AuthenticAMD" in _CPU.read_text():
        torch.set_float32_matmul_precision("medium")
        try:
            fine = torch.full((256, 256), 1 + 2**-20)  # rounds to 1 in bfloat16 and in TF32
            if not torch.equal(fine @ torch.eye(256), fine):
                torch.set_float32_matmul_precision("highest")
            yield
        finally:
            torch.set_float32_matmul_precision("highest")
    else:
        yield

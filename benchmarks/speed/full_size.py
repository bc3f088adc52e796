"""What the recipes' networks cost on this machine: full size, random weights, seconds a row and peak memory.

    python benchmarks/speed/full_size.py [--device cuda]

Each line runs in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable

import jsonargparse
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lcg_lightning.generators.diffae import DiffAEGenerator
from lcg_lightning.generators.stylegan2 import StyleGAN2Generator
from lcg_lightning.networks.diffae import DiffAE
from lcg_lightning.networks.latent import LatentMLP
from lcg_lightning.networks.stylegan2 import StyleGAN2

STEPS = 2
"""DDIM steps that are timed; a step of decoding and one of inverting cost the same."""


def stylegan2(device: str) -> tuple[Callable[[], Tensor], int]:
    generator = StyleGAN2Generator(StyleGAN2()).to(device)
    w = torch.randn(2, 512, device=device)
    return lambda: generator.decode(w), len(w)


def diffae_encode(device: str) -> tuple[Callable[[], Tensor], int]:
    generator = DiffAEGenerator(DiffAE(), steps=STEPS).to(device)
    images = torch.rand(2, 3, 256, 256, device=device)
    return lambda: generator.encode(images), len(images)


def diffae_step(device: str) -> tuple[Callable[[], Tensor], int]:
    generator = DiffAEGenerator(DiffAE(), steps=STEPS).to(device)
    z = torch.randn(1, 512, device=device)
    return lambda: generator.decode(z), STEPS * len(z)


def prior_training_step(device: str) -> tuple[Callable[[], Tensor], int]:
    network = LatentMLP(512, 2048, 6).to(device)
    z, t = torch.randn(256, 512, device=device), torch.arange(256, device=device).float()

    def step() -> Tensor:
        network.zero_grad()
        loss = network(z, t).square().mean()
        loss.backward()
        return loss

    return step, 1


LINES = {
    "StyleGAN2 1024, decode, s an image": (stylegan2, False),
    "DiffAE ffhq256, encode, s an image": (diffae_encode, False),
    "DiffAE ffhq256, a DDIM step, s an image": (diffae_step, False),
    "prior 512-d x 2048 x 6, batch 256, s a training step": (prior_training_step, True),
}


def measure(name: str, device: str, answer: "multiprocessing.SimpleQueue[tuple[float, float]]") -> None:
    make, gradients = LINES[name]
    with torch.set_grad_enabled(gradients):
        run, rows = make(device)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            run()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer.put((min(times[1:]) / rows, peak))


def main(device: str = "cpu") -> None:
    """Print the table.

    Args:
        device: where to compute.
    """
    table = Table("", "seconds", "peak GiB", title=f"{device}, {torch.get_num_threads()} threads")
    context = multiprocessing.get_context("spawn")
    for name in LINES:
        answer = context.SimpleQueue()
        process = context.Process(target=measure, args=(name, device, answer))
        process.start()
        seconds, peak = answer.get()
        process.join()
        table.add_row(name, f"{seconds:.3f}", f"{peak:.1f}")
    Console().print(table)


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=False)

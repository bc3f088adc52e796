"""Decoding and encoding pictures against what cannot be left out.

The floor of decoding is the time that a plain matrix product takes for as many operations as the network has. The floor
of encoding is the encoder's forward pass over images that are in memory. Where that keeps all cores busy, reading the
files takes time from it; the note says what is then left to reach.
"""

import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.measure import Row, compare, take_turns
from lcg_lightning.commands.render import render
from lcg_lightning.data.encode import encode
from lcg_lightning.data.images import ImageFiles
from lcg_lightning.data.sources.celebahq import CelebAHQ
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.diffae import DiffAEGenerator
from lcg_lightning.generators.load import load_generator
from lcg_lightning.generators.stylegan2 import StyleGAN2Generator
from lcg_lightning.networks.diffae import DiffAE
from lcg_lightning.networks.stylegan2 import StyleGAN2

AT_MOST, AT_LEAST, ROUNDS, BATCH = 2.0, 0.9, 5, 64
PRODUCT = 1024
"""Rows, columns and depth of the floor's products."""


def rows(tiny: bool) -> list[Row]:
    zoo = load_generator("synthfaces").eval()
    assert isinstance(zoo, StyleGAN2Generator)
    found = [decoding("StyleGAN2, the zoo's: 64 pixels, batch 32", zoo, 4 if tiny else 32)]
    if not tiny:
        found.insert(0, decoding("StyleGAN2, config F: 1024 pixels, batch 1", StyleGAN2Generator(StyleGAN2()), 1))
    found.append(encoding("encoding, the zoo's network: 64 pixels", zoo, 64 if tiny else 8192))
    if not tiny:
        found.append(encoding("encoding, DiffAE's network: 256 pixels", DiffAEGenerator(DiffAE()), 24))
    return found


def decoding(where: str, generator: StyleGAN2Generator, batch: int) -> Row:
    w = torch.randn(batch, *generator.latent_shape)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            generator.decode(w)
        operations = counter.get_total_flops()
        costs = take_turns(
            {"decode": lambda: generator.decode(w), "bare products": lambda: products(operations)}, ROUNDS
        )
    note = f"{operations / 2e9 / batch:.3g} GMAC an image"
    return compare(where, costs, "decode", "bare products", at_most=AT_MOST, note=note)


def products(operations: int) -> float:
    """Seconds of products with so many operations; a small count is extrapolated from one product."""
    a, b = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
    out = torch.empty(PRODUCT, PRODUCT)
    count = operations / (2 * PRODUCT**3)
    begin = time.perf_counter()
    for _ in range(max(1, round(count))):
        torch.mm(a, b, out=out)
    return (time.perf_counter() - begin) * count / max(1, round(count))


def encoding(where: str, generator: Generator, n: int) -> Row:
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        faces = render(Path(folder, "faces"), train=n, val=0, test=0)
        table = CelebAHQ(faces / "images", faces / "attributes.txt", partition=faces / "splits.txt").read()
        files = ImageFiles(table.paths, generator.image_size, resize=True)
        images = torch.stack([files[i] for i in range(n)]).split(BATCH)

        def forward() -> None:
            with torch.inference_mode():
                for part in images:
                    generator.encode(part)

        def whole() -> None:
            with tempfile.TemporaryDirectory() as out:
                encode(table, generator, Path(out, "store"), resize=True, batch_size=BATCH, num_workers=1)

        def read() -> None:
            for rows in torch.arange(n).split(BATCH):
                files.pixels(rows.tolist())

        costs = take_turns({"lcg encode": whole, "bare forward": forward, "reading": read}, ROUNDS)
    reading, bare, cores = median(costs["reading"]), median(costs["bare forward"]), torch.get_num_threads()
    note = (
        f"{n:,} PNG files of 64 pixels, read as {generator.image_size}, one worker; set-up and writing the store "
        f"included; reading alone takes a core {reading:.3g} s, so {bare / (bare + reading / cores):.2f} is the most "
        f"that {cores} threads can reach"
    )
    return compare(where, costs, "lcg encode", "bare forward", at_least=AT_LEAST, note=note)

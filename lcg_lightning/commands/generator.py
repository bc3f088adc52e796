"""``lcg generator``: describes a generator, or converts its file."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lcg_lightning.formats.descriptions import read_spec
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.convert import convert as convert_file
from lcg_lightning.generators.files import kind_of
from lcg_lightning.generators.load import find, load_generator


def info(generator: str | dict[str, Any]) -> None:
    """Say what a generator is and what it can do.

    Args:
        generator: zoo name, generator file, YAML file with its path and options or its class_path and init_args, or
            the content of one.
    """
    where, given = read_spec(generator)
    kind = "none"
    if not (given and "class_path" in given):
        path, _ = find(generator)
        where, kind = str(path), kind_of(path)
    table = Table(show_header=False, title=where, title_justify="left")
    for row in describe(load_generator(generator), kind).items():
        table.add_row(*row)
    Console().print(table)


def describe(generator: Generator, kind: str) -> dict[str, str]:
    """The properties that :func:`info` prints."""

    def can(method: str) -> str:
        return "yes" if generator.can(method) else "no"

    noise = generator.noise_shape
    return {
        "file": kind,
        "kind": type(generator).__name__,
        "latent shape": " x ".join(map(str, generator.latent_shape)),
        "noise beside a latent": "none" if noise is None else " x ".join(map(str, noise)),
        "resolution": f"{generator.image_size} x {generator.image_size}",
        "parameters": f"{sum(p.numel() for p in generator.parameters()):,}",
        "fingerprint": generator.fingerprint,
        "encodes images": can("encode"),
        "samples latents": can("sample_latents"),
        "inverts images": can("invert"),
        "own statistics": "no" if generator.statistics is None else f"of {math.prod(generator.latent_shape)} numbers",
    }


def convert(source: Path, out: Path) -> Path:
    """Write the generator of a StyleGAN2 pickle or a DiffAE checkpoint as safetensors.

    Args:
        source: the file to read.
        out: the file to write; it holds only the generator's weights, with the same fingerprint.
    """
    path = convert_file(source, out)
    Console().print(f"{path}: fingerprint {load_generator(path).fingerprint}", highlight=False)
    return path

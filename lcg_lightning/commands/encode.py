"""``lcg encode``: encodes a data set into a latent store."""

import os
from pathlib import Path
from typing import Any, Literal

from lcg_lightning.data import encode as encoding
from lcg_lightning.data.annotated import DataSource, ImageData, LatentData
from lcg_lightning.data.place import ensure_place
from lcg_lightning.data.sources import celebahq, exact, generated, styleflow, tables  # noqa: F401 - named in YAML
from lcg_lightning.data.sources.exact import ExactFaces
from lcg_lightning.data.sources.generated import Sampled
from lcg_lightning.data.work import Loop
from lcg_lightning.errors import UserError
from lcg_lightning.formats.descriptions import plain_spec
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.generators.load import load_generator
from lcg_lightning.processes import is_first


def encode(
    out: Path,
    data: DataSource,
    generator: str | dict[str, Any] = "synthfaces",
    resize: bool = False,
    batch_size: int = 64,
    shard_batches: int = 8,
    num_workers: int | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    strategy: Literal["auto", "ddp"] = "auto",
) -> Path:
    """Encode a data set into a latent store.

    To resume an interrupted run, give the same command again.

    Args:
        out: folder of the store to make.
        data: labelled images (CelebAHQ, ImageTable), labelled latents (StyleFlow, LACE), or samples of the generator
            labelled by an attribute network (Sampled) or by their truth (ExactFaces).
        generator: zoo name, generator file, YAML file (path and options, or class_path and init_args), or the content
            of one.
        resize: scale square images of another size.
        batch_size: rows in a batch, per process.
        shard_batches: batches between two writes of finished rows.
        num_workers: processes that read image files meanwhile, per process; by default as many as cores are left, at
            most 4, and none for a single batch.
        accelerator: as in Lightning's Trainer.
        devices: number of processes on a machine.
        num_nodes: number of machines; torchrun or SLURM starts the command on each.
        strategy: as in Lightning's Trainer.
    """
    processes = 8 * (os.cpu_count() or 1)
    for name, value, least, most in (
        *(("batch_size", batch_size, 1, 2**20), ("shard_batches", shard_batches, 1, 2**20)),
        *(("num_workers", num_workers or 0, 0, processes), ("devices", devices, 1, processes)),
        ("num_nodes", num_nodes, 1, 2**20),
    ):
        if not least <= value <= most:
            raise UserError(f"{name} is {value}; it must be from {least} to {most}")
    if isinstance(data, LatentData | ExactFaces) and not is_first():
        return out  # the first process writes them
    ensure_place(out)
    if resize and not isinstance(data, ImageData):
        raise UserError(f"resize is for image files, and {type(data).__name__} has none; leave it out")
    network = load_generator(generator)
    source = {"data": type(data).__name__, **data.config, "generator": plain_spec(generator)}
    loop: Loop = {
        "batch_size": batch_size,
        "shard_batches": shard_batches,
        "num_workers": num_workers,
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "strategy": strategy,
    }
    if isinstance(data, LatentData):
        return encoding.store(data.read(network.latent_shape), network, out, source=source)
    if isinstance(data, ExactFaces):
        if not isinstance(network, ExactWorld):
            raise UserError("ExactFaces: draws from synthfaces-exact alone; give it as the generator, or use Sampled")
        return encoding.store(data.rows(network), network, out, source=source)
    if isinstance(data, Sampled):
        return encoding.sample_and_label(data.n, data.judge(), network, out, seed=data.seed, source=source, **loop)
    if not isinstance(data, ImageData):
        known = "CelebAHQ, ImageTable, StyleFlow, LACE, Sampled or ExactFaces"
        raise UserError(f"{type(data).__name__} is not a data set; name {known}")
    return encoding.encode(data.read(network.image_size), network, out, source=source, resize=resize, **loop)

"""``lcg render``: renders a SynthFaces data set to disk."""

from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import save_file

from lcg_lightning.commands.output import MOST, write_images
from lcg_lightning.data.sources.annotations import write_attributes, write_measures, write_splits
from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic_folder, ensure_creatable
from lcg_lightning.synthfaces.faces import SCHEMA, faces_from_z, held_out, sample_z
from lcg_lightning.synthfaces.renderer import render as draw

CHUNK = 256


def render(out: Path, train: int = 10000, val: int = 1000, test: int = 1000, seed: int = 0) -> Path:
    """Render SynthFaces in the layout of CelebA-HQ.

    Writes images/NNNNN.png, attributes.txt, pose.txt (Yaw Pitch Raw), age.txt (Age), splits.txt and, for what knows the
    truth, faces.safetensors, the z (N, Z_DIM) of each face. Train and val contain none of the held-out combinations;
    test follows the full joint distribution.

    Args:
        out: output folder, which must be new or empty.
        train: images of the training split.
        val: images of the validation split.
        test: images of the test split.
        seed: seed of the faces.

    Raises:
        UserError: out exists and is not empty or cannot be written, the number of images is 0 or above :data:`MOST`, or
            the seed is not within 0 .. 2^32 - 1.
    """
    if min(train, val, test) < 0 or train < 1:
        raise UserError(f"lcg render: {train} train, {val} val, {test} test images; ask for at least one to train on")
    if train + val + test > MOST:
        raise UserError(f"lcg render: {train + val + test} images; ask for at most {MOST}")
    if not 0 <= seed < 2**32:
        raise UserError(f"lcg render: seed is {seed}; give a number from 0 to {2**32 - 1}")
    ensure_creatable(out)
    z = torch.cat([_allowed(train + val, seed), sample_z(test, seed + 2**32)])
    faces = faces_from_z(z)
    ids = [f"{i:05d}.png" for i in range(len(z))]
    binary = [a.name for a in SCHEMA if a.kind == "binary"]
    yaw, age = (faces.labels[:, SCHEMA.index(name)] for name in ("Yaw", "Age"))
    with atomic_folder(out) as part:
        for start in track(range(0, len(z), CHUNK), description="Rendering"):
            write_images(part, draw(faces_from_z(z[start : start + CHUNK])), start)
        write_attributes(part / "attributes.txt", binary, ids, faces.labels[:, : len(binary)])
        write_measures(part / "pose.txt", ["Yaw", "Pitch", "Raw"], ids, torch.stack([yaw, 0 * yaw, 0 * yaw], 1))
        write_measures(part / "age.txt", ["Age"], ids, age[:, None])
        save_file({"z": z}, part / "faces.safetensors")
        write_splits(part / "splits.txt", ids, ["train"] * train + ["val"] * val + ["test"] * test)
    return out


def _allowed(n: int, seed: int) -> torch.Tensor:
    """Rows of z (n, Z_DIM) without held-out combinations."""
    z, block = torch.zeros(0, 0), 0
    while len(z) < n:
        more = sample_z(4096, seed * 2**16 + block + 1)
        more = more[~held_out(faces_from_z(more).labels)]
        z, block = torch.cat([z, more]) if block else more, block + 1
    return z[:n]

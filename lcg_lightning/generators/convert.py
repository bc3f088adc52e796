"""Converts third-party generator files to safetensors."""

from os.path import lexists
from pathlib import Path

from lcg_lightning.errors import UserError
from lcg_lightning.files import ensure_writable
from lcg_lightning.formats import tensors
from lcg_lightning.formats.descriptions import Spec
from lcg_lightning.formats.diffae_checkpoint import load_autoencoder
from lcg_lightning.formats.stylegan2_pickle import load_pickle
from lcg_lightning.generators.files import kind_of
from lcg_lightning.generators.load import find


def convert(source: Spec, out: Path) -> Path:
    """Writes the generator weights of a StyleGAN2 pickle or a DiffAE autoencoder as safetensors.

    The fingerprint stays the same, so stores and records stay valid.

    Raises:
        UserError: the file is of another kind, or ``out`` exists or cannot be written.
    """
    path, options = find(source)
    if options:
        raise UserError(f"{path}: a file keeps no options ({', '.join(options)}); give the file itself")
    if lexists(out):
        raise UserError(f"{out} exists; remove it or give another name")
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: give a name that ends in .safetensors")
    ensure_writable(out.parent)
    kind = kind_of(path)
    if kind == "StyleGAN2 pickle":
        network, arguments = load_pickle(path)
        return tensors.save(out, {"network": network}, {"kind": "stylegan2", "network": arguments})
    if kind == "torch checkpoint":
        found = load_autoencoder(path)
        statistics = [x.tolist() for x in found.statistics] if found.statistics else None
        config = {"kind": "diffae", "network": found.arguments, "num_steps": found.num_steps, "statistics": statistics}
        return tensors.save(out, {"network": found.network}, config)
    raise UserError(f"{path}: a {kind} needs no conversion")

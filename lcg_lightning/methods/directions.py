"""Published directions of latent arithmetic: InterFaceGAN's boundaries and DiffAE's linear classifier."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.formats.diffae_checkpoint import load_linear_classifier
from lcg_lightning.formats.pickles import read_array

CELEBA = tuple(
    """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
    Wearing_Necktie Young
    """.split()  # noqa: SIM905 - readable
)
"""CelebA's attributes, in the order of its files and of DiffAE's classifier."""


def read_directions(source: Path | Mapping[str, Path], store: LatentStore) -> dict[str, Tensor]:
    """Unit steps towards attributes, in the generator's latents.

    An InterFaceGAN boundary (arXiv 1907.10786) is a unit normal in W, so a step has length 1 there; in W+ it moves
    every layer. A direction of DiffAE's classifier has length 1 in latents standardized by its checkpoint.

    Args:
        source: boundary files (.npy, (1, D) or (D,)) by attribute, or the checkpoint of a DiffAE classifier.
        store: the store that has these attributes and latents.

    Returns:
        Directions (*latent_shape), float64, by attribute.

    Raises:
        UserError: an attribute that the store does not have, or a file that is damaged or of another width.
    """
    if isinstance(source, Mapping):
        found = {store.schema[name].name: _boundary(Path(path)) for name, path in source.items()}
        where = {store.schema[name].name: path for name, path in source.items()}
    else:
        classifier = load_linear_classifier(source)
        if store.mean.shape != classifier.mean.shape or not torch.allclose(store.mean, classifier.mean, rtol=1e-3):
            warnings.warn(
                f"{source} standardizes latents otherwise than {store.path}; check that both are of one autoencoder",
                stacklevel=2,
            )
        unit = torch.nn.functional.normalize(classifier.weight.double(), dim=1) * classifier.std
        found = {name: step for name, step in zip(CELEBA, unit, strict=True) if name in store.schema.names}
        where = dict.fromkeys(found, source)
    for name, step in found.items():
        if len(step) != store.latent_shape[-1]:
            raise UserError(
                f"{where[name]}: a direction of {len(step)} numbers, but latents of {store.path} have shape "
                f"{store.latent_shape}; give one of the same generator"
            )
    return {name: step.expand(store.latent_shape) for name, step in found.items()}


def _boundary(path: Path) -> Tensor:
    normal = read_array(path).reshape(-1)
    length = float(np.linalg.norm(normal))
    if not 0.99 < length < 1.01:
        raise UserError(f"{path}: a vector of length {length:.3g}, not a unit normal; divide it by its length")
    return torch.from_numpy(normal)

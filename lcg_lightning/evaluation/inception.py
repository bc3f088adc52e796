"""clean-fid's Inception network, as features for the Fréchet distance.

Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv 2104.11222.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Self

import numpy as np
import torch
from cleanfid.downloads_helper import check_download_inception, inception_url
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import make_resizer
from torch import Tensor, nn

from lcg_lightning.data.images import in_bytes
from lcg_lightning.errors import UserError
from lcg_lightning.kept import keeps

INCEPTION_FILE = "inception-2015-12-05.pt"
_SIDE = 299


class InceptionFeatures(nn.Module):
    """The pooled features of the 2015 Inception network, on images resized as in clean-fid.

    Frozen, and always in evaluation mode.

    Args:
        file: The TorchScript file ``inception-2015-12-05.pt``.
    """

    name = "inception-clean"
    num_features = 2048

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()
        self.network = InceptionV3W(str(file.parent), download=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 2048) float32 of images (B, 3, H, W) in [-1, 1]."""
        features: Tensor = self.network(clean_resize(images))
        return features


def clean_resize(images: Tensor) -> Tensor:
    """Resizes images as clean-fid does: 8-bit input, PIL's antialiased bicubic filter, float output.

    Args:
        images: (B, 3, H, W) in [-1, 1], B >= 1; quantized to the 256 levels of an image file.

    Returns:
        (B, 3, 299, 299) float32 in [0, 255], on the images' device.
    """
    resize = make_resizer("PIL", False, "bicubic", (_SIDE, _SIDE))
    pixels = in_bytes(images.float())
    resized = np.stack([resize(image) for image in pixels.permute(0, 2, 3, 1).cpu().numpy()])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).to(images.device)


@keeps
def load_inception(path: Path | None = None, download: bool = False) -> InceptionFeatures:
    """Clean-fid's Inception network.

    Args:
        path: ``inception-2015-12-05.pt``, or the folder that holds it; by default torch.hub's checkpoint folder.
        download: Download the file (95 MB) if it is missing.

    Raises:
        UserError: the file is missing, has another name, cannot be downloaded, or is not that network.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" if path is None else Path(path)
    if file.suffix != ".pt":
        file = file / INCEPTION_FILE
    if file.name != INCEPTION_FILE:
        raise UserError(f"{file}: the Inception network's file must be named {INCEPTION_FILE}; rename it")
    if not file.is_file():
        if not download:
            raise UserError(f"no Inception network at {file}; put {inception_url} there, or allow the download")
        _download(file)
    try:
        return InceptionFeatures(file)
    except (RuntimeError, AttributeError) as error:
        raise UserError(f"{file} is not clean-fid's Inception network; fetch it again from {inception_url}") from error


def _download(file: Path) -> None:
    """Downloads the network to a temporary file first, so that a broken transfer leaves nothing behind."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            os.replace(check_download_inception(fpath=folder), file)
    except OSError as error:
        raise UserError(f"could not fetch {inception_url} ({error}); put the file at {file} by hand") from error

"""Recipes of the second judge and the second identity network, by which nothing is trained or tuned.

A method that has learnt to please the first two networks is found out by these: they share neither architecture nor
augmentations nor random numbers with them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lcg_lightning.networks.dilated import DilatedNet
from lcg_lightning.recipes.zoo import AttributeRecipe, IdentityRecipe
from lcg_lightning.synthfaces.faces import SCHEMA


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts images (B, 3, H, W) by up to two pixels, changes brightness, contrast and colour, and covers a patch."""
    b, _, height, width = images.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(b, *shape, generator=generator).to(images)

    theta = torch.zeros(b, 2, 3).to(images)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.0
    theta[:, :, 2] = (uniform(2) - 0.5) * (8 / width)
    grid = F.affine_grid(theta, [b, 3, height, width], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = images * (0.85 + 0.3 * uniform(1, 1, 1)) + 0.2 * (uniform(3, 1, 1) - 0.5)
    edge = max(2, height // 8)
    top, left = (uniform(2) * (height - edge)).long().unbind(1)
    row = torch.arange(height, device=images.device)
    inside_rows = (row >= top[:, None]) & (row < top[:, None] + edge)
    inside_columns = (row >= left[:, None]) & (row < left[:, None] + edge)
    patch = inside_rows[:, :, None] & inside_columns[:, None, :] & (uniform(1, 1) < 0.5)
    return torch.where(patch[:, None], images.mean((2, 3), keepdim=True), images)


class SecondAttributeRecipe(AttributeRecipe):
    """The second attribute classifier: dilated convolutions, shifted, recoloured and partly covered images."""

    def __init__(self, batch_size: int = 64, lr: float = 2e-3) -> None:
        super().__init__(batch_size, lr)
        self.network = DilatedNet(SCHEMA.num_outputs)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Of a training batch."""
        return disturb(images, generator)


class SecondIdentityRecipe(IdentityRecipe):
    """The second identity network: dilated convolutions, shifted, recoloured and partly covered images."""

    def __init__(self, batch_size: int = 64, lr: float = 2e-3, embedding: int = 64, temperature: float = 0.1) -> None:
        super().__init__(batch_size, lr, embedding, temperature)
        self.network = DilatedNet(embedding)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Of a training batch."""
        return disturb(images, generator)

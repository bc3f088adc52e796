"""A network unlike :class:`~lcg_lightning.networks.convnet.ConvNet`: dilated convolutions and no batch norm."""

import torch.nn.functional as F
from torch import Tensor, nn


class DilatedBlock(nn.Module):
    """A residual convolution that looks ``dilation`` cells away, after normalising each image."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        return x + F.gelu(self.conv(self.norm(x)))


class DilatedNet(nn.Module):
    """Images (B, 3, size, size) in [-1, 1] to features (B, num_features) and outputs (B, num_outputs).

    Patches of 4 x 4 pixels become cells; dilated blocks let each of them see the whole image at one resolution.
    """

    def __init__(
        self,
        num_outputs: int,
        num_features: int = 128,
        channels: int = 64,
        dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4),
        size: int = 64,
    ) -> None:
        super().__init__()
        self.num_features, self.num_outputs = num_features, num_outputs
        self.patches = nn.Conv2d(3, channels, 4, stride=4)
        self.blocks = nn.Sequential(*(DilatedBlock(channels, d) for d in dilations))
        self.pool = nn.Conv2d(channels, channels, 4, stride=4)
        self.norm = nn.GroupNorm(1, channels)
        self.neck = nn.Linear(channels * (size // 16) ** 2, num_features)
        self.head = nn.Linear(num_features, num_outputs)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, num_features) under the last linear layer."""
        cells = self.blocks(F.gelu(self.patches(images)))
        return F.gelu(self.neck(F.gelu(self.pool(self.norm(cells))).flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, num_outputs)."""
        out: Tensor = self.head(self.features(images))
        return out

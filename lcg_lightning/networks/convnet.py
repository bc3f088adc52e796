"""The small convolutional network behind the zoo's judges, encoder and feature loss."""

import torch.nn.functional as F
from torch import Tensor, nn


class Stage(nn.Module):
    """Halves the resolution, then applies a residual convolution, except on pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        kernel = 5 if inputs == 3 else 3
        self.down = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
        self.down_norm = nn.BatchNorm2d(outputs)
        self.residual = inputs != 3
        if self.residual:
            self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.conv_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        x = F.silu(self.down_norm(self.down(x)))
        return F.silu(x + self.conv_norm(self.conv(x))) if self.residual else x


class ConvNet(nn.Module):
    """Images (B, 3, size, size) in [-1, 1] to features (B, num_features) and outputs (B, num_outputs)."""

    def __init__(
        self,
        num_outputs: int,
        num_features: int = 128,
        widths: tuple[int, ...] = (24, 48, 96, 160),
        size: int = 64,
    ) -> None:
        super().__init__()
        self.num_features, self.num_outputs = num_features, num_outputs
        self.stages = nn.ModuleList(Stage(i, o) for i, o in zip((3, *widths[:-1]), widths, strict=True))
        edge = size // 2 ** len(widths)
        self.neck = nn.Linear(widths[-1] * edge * edge, num_features)
        self.head = nn.Linear(num_features, num_outputs)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps after every stage, at 1/2, 1/4, ... of the resolution."""
        out = [images]
        for stage in self.stages:
            out.append(stage(out[-1]))
        return out[1:]

    def features(self, images: Tensor) -> Tensor:
        """Features (B, num_features) under the last linear layer."""
        return F.silu(self.neck(self.maps(images)[-1].flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, num_outputs)."""
        out: Tensor = self.head(self.features(images))
        return out

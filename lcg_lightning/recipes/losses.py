"""What the generator of the zoo is trained by beside pixels: gradients of images, and a discriminator of patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg_lightning.networks.convnet import ConvNet


def gradient_distance(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical differences of images (B, C, H, W)."""
    error = images - targets
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    return across + down


def feature_distance(network: ConvNet, images: Tensor, targets: Tensor) -> Tensor:
    """Perceptual distance (Zhang et al., arXiv 1801.03924) plus ten times the squared difference of the outputs.

    Feature vectors at every place and stage are compared at unit length. Gradients flow into the images alone.

    Args:
        network: frozen, in eval mode.
        images: (B, 3, H, W) in [-1, 1].
        targets: (B, 3, H, W) in [-1, 1].
    """
    ours, theirs = network.maps(images), network.maps(targets.detach())
    distance: Tensor = 10.0 * F.mse_loss(_outputs(network, ours[-1]), _outputs(network, theirs[-1]))
    for a, b in zip(ours, theirs, strict=True):
        distance = distance + (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()
    return distance


def _outputs(network: ConvNet, last: Tensor) -> Tensor:
    out: Tensor = network.head(F.silu(network.neck(last.flatten(1))))
    return out.float()


def laplacian_energy(images: Tensor) -> Tensor:
    """Mean square (B,) of the Laplacian of each image (B, C, H, W): how much fine detail it has."""
    c = images[:, :, 1:-1, 1:-1]
    around = images[:, :, :-2, 1:-1] + images[:, :, 2:, 1:-1] + images[:, :, 1:-1, :-2] + images[:, :, 1:-1, 2:]
    return (around - 4 * c).square().mean((1, 2, 3))


class PatchDiscriminator(nn.Module):
    """Images (B, 3, H, W) to a logit for each of their overlapping patches (B, 1, H / 16, W / 16)."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, H / 16, W / 16)."""
        out: Tensor = self.layers(images)
        return out

    def loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logistic loss of telling real from fake images."""
        return F.softplus(-self(real)).mean() + F.softplus(self(fake.detach())).mean()

    def r1(self, real: Tensor) -> Tensor:
        """Mean squared norm of the gradient at real images (Mescheder et al., arXiv 1801.04406)."""
        real = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self(real).sum(), real, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

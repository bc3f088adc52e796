"""The vector field of a conditional continuous normalizing flow on latents."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class ConcatSquash(nn.Module):
    """A linear layer whose output is gated and shifted by a context (FFJORD, arXiv 1810.01367; StyleFlow)."""

    def __init__(self, inputs: int, outputs: int, context: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(context, outputs)
        self.shift = nn.Linear(context, outputs, bias=False)

    def forward(self, x: Tensor, tangent: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(Wx + b) sigmoid(gate) + shift (B, outputs), and the tangents' images (P, B, outputs)."""
        gate = torch.sigmoid(self.gate(context))
        return self.linear(x) * gate + self.shift(context), (tangent @ self.linear.weight.T) * gate


class FlowField(nn.Module):
    """dz/dt at z (B, D), time t (B,) and condition c (B, C): ConcatSquash layers with tanh between them.

    Args:
        latent_dim: D.
        condition_dim: C.
        hidden: width of the hidden layers.
        layers: number of linear layers, at least 2.
    """

    def __init__(self, latent_dim: int, condition_dim: int, hidden: int = 256, layers: int = 6) -> None:
        super().__init__()
        widths = [latent_dim, *[hidden] * (layers - 1), latent_dim]
        self.layers = nn.ModuleList(ConcatSquash(i, o, condition_dim + 1) for i, o in pairwise(widths))

    def forward(self, z: Tensor, t: Tensor, c: Tensor, tangent: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The field (B, D), and its derivative along each of P tangents (P, B, D); none by default.

        Both have the dtype of z, also where autocast computes in another.
        """
        dtype = z.dtype
        context = torch.cat([t.to(z)[:, None], c], 1)
        v = z.new_zeros(0, *z.shape) if tangent is None else tangent
        for k, layer in enumerate(self.layers):
            if k:
                z = torch.tanh(z)
                v = v * (1 - z.square())
            z, v = layer(z, v, context)
        return z.to(dtype), v.to(dtype)

"""One network per attribute on clean latents, as LACE's energy uses them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lcg_lightning.attributes import AttributeSchema


class SeparateClassifiers(nn.Module):
    """For every attribute, an MLP with LeakyReLU(0.2) from latents (B, D) to its head (LACE, arXiv 2110.10873).

    A continuous head predicts the mean; its variance is fixed.

    Args:
        latent_dim: D.
        schema: the attributes.
        widths: widths of the hidden layers.
        log_variance: of continuous attributes, on the unit scale.
    """

    def __init__(self, latent_dim: int, schema: AttributeSchema, widths: Sequence[int], log_variance: float) -> None:
        super().__init__()
        self.continuous = [attribute.kind == "continuous" for attribute in schema]
        self.log_variance = log_variance
        self.heads = nn.ModuleList()
        for attribute in schema:
            layers: list[nn.Module] = []
            for inputs, outputs in zip((latent_dim, *widths[:-1]), widths, strict=True):
                layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
            width = 1 if attribute.kind == "continuous" else attribute.num_outputs
            self.heads.append(nn.Sequential(*layers, nn.Linear(widths[-1], width)))

    def forward(self, z: Tensor) -> Tensor:
        """Outputs (B, K) for latents (B, D), in their dtype, laid out as a schema's heads."""
        parts: list[Tensor] = []
        for head, continuous in zip(self.heads, self.continuous, strict=True):
            out = head(z).to(z.dtype)
            parts += [out, torch.full_like(out, self.log_variance)] if continuous else [out]
        return torch.cat(parts, 1)

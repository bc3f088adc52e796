"""Time features."""

import math

import torch
from torch import Tensor

TIME_FEATURES = 64


def time_features(t: Tensor, width: int = TIME_FEATURES) -> Tensor:
    """Sinusoids (..., width) of fractional time indices t (...,) as cat[cos, sin] of periods 2 pi to 2e4 pi."""
    half = width // 2
    angles = t[..., None] * torch.exp(torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(1e4) / half))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)

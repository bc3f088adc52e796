"""Networks of Diffusion Autoencoders: a semantic encoder and a conditional diffusion decoder of images.

Written from Preechakul et al. 2022 (arXiv 2111.15640), whose decoder is the U-Net of Dhariwal and Nichol
(arXiv 2105.05233). Module names follow the published checkpoints, so their ``ema_model`` loads as it is.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg_lightning.networks.time import time_features

RESIDUAL_BLOCKS = 2
"""Residual blocks per level, in all published sizes."""


Resample = Literal["up", "down"] | None


def normalise(channels: int) -> nn.GroupNorm:
    """Group normalization over at most 32 groups."""
    return nn.GroupNorm(min(32, channels), channels)


def resample(x: Tensor, how: Resample) -> Tensor:
    """Halves x (B, C, H, W) by averaging, doubles it by repeating, or leaves it."""
    if how == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if how == "up" else x


class EncoderBlock(nn.Module):
    """Normalization, activation and one convolution, with a skip connection."""

    def __init__(self, inputs: int, outputs: int, how: Resample = None) -> None:
        super().__init__()
        self.how = how
        self.in_layers = nn.Sequential(normalise(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def convolve(self, x: Tensor) -> Tensor:
        """The first convolution, (B, inputs, H, W) -> (B, outputs, H', W')."""
        h: Tensor = self.in_layers[2](resample(self.in_layers[:2](x), self.how))
        return h

    def skip(self, x: Tensor) -> Tensor:
        """The path around the convolutions."""
        out: Tensor = self.skip_connection(resample(x, self.how))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W')."""
        return self.skip(x) + self.convolve(x)


class DecoderBlock(EncoderBlock):
    """Residual block modulated by time, then by the latent (arXiv 2111.15640, eq. 7)."""

    def __init__(self, inputs: int, outputs: int, how: Resample = None, *, width: int) -> None:
        super().__init__(inputs, outputs, how)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * outputs))
        self.cond_emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, outputs))
        self.out_layers = nn.Sequential(
            normalise(outputs), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(outputs, outputs, 3, padding=1)
        )

    def forward(self, x: Tensor, time: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        """(B, inputs, H, W) with time (B, width) and z (B, width) to (B, outputs, H', W')."""
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, dim=1)
        h = self.out_layers[0](self.convolve(x)) * (1 + scale) + shift
        h = h * (1 + self.cond_emb_layers(z)[:, :, None, None])
        out: Tensor = self.skip(x) + self.out_layers[1:](h)
        return out


class Attention(nn.Module):
    """Single-head self-attention over the pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normalise(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        flat = x.flatten(2)
        q, k, v = self.qkv(self.norm(flat)).transpose(1, 2).contiguous().chunk(3, dim=2)  # (B, HW, C) each
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = (flat + self.proj_out(h)).view_as(x)
        return out


class Stage(nn.Sequential):
    """The blocks of one step down or up; time and latent go to those that need them."""

    def forward(self, x: Tensor, *modulation: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        for block in self:
            x = block(x, *modulation) if isinstance(block, DecoderBlock) else block(x)
        return x


MakeBlock = Callable[..., EncoderBlock]


def down_path(
    size: int, channels: int, mult: Sequence[int], attention: Sequence[int], block: MakeBlock
) -> tuple[nn.ModuleList, list[int]]:
    """Stages from images to the smallest feature maps, and the number of channels each one outputs."""
    width = channels * mult[0]
    stages, widths = [Stage(nn.Conv2d(3, width, 3, padding=1))], [width]
    for level, m in enumerate(mult):
        for _ in range(RESIDUAL_BLOCKS):
            stages.append(_stage(block(width, channels * m), size in attention))
            width = channels * m
            widths.append(width)
        if level + 1 < len(mult):
            stages.append(Stage(block(width, width, "down")))
            widths.append(width)
            size //= 2
    return nn.ModuleList(stages), widths


def up_path(
    size: int, channels: int, mult: Sequence[int], widths: list[int], attention: Sequence[int], block: MakeBlock
) -> nn.ModuleList:
    """Stages back to the images' size; each takes the features of its counterpart on the way down."""
    width, stages = widths[-1], []
    for level, m in reversed(list(enumerate(mult))):
        at = size // 2**level
        for i in range(RESIDUAL_BLOCKS + 1):
            stage = _stage(block(width + widths.pop(), channels * m), at in attention)
            width = channels * m
            if level and i == RESIDUAL_BLOCKS:
                stage.append(block(width, width, "up"))
            stages.append(stage)
    return nn.ModuleList(stages)


def _stage(block: EncoderBlock, attend: bool) -> Stage:
    width = block.in_layers[2].out_channels
    assert isinstance(width, int)
    return Stage(block, Attention(width)) if attend else Stage(block)


class SemanticEncoder(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] -> z_sem (B, latent_dim)."""

    def __init__(
        self, image_size: int, channels: int, mult: Sequence[int], latent_dim: int, attention: Sequence[int]
    ) -> None:
        super().__init__()
        self.input_blocks, widths = down_path(image_size, channels, mult, attention, EncoderBlock)
        width = widths[-1]
        self.middle_block = Stage(EncoderBlock(width, width), Attention(width), EncoderBlock(width, width))
        self.out = nn.Sequential(
            normalise(width), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, latent_dim, 1), nn.Flatten()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Latents of images."""
        x = images
        for stage in self.input_blocks:
            x = stage(x)
        z: Tensor = self.out(self.middle_block(x))
        return z


class TimeEmbedding(nn.Module):
    """Times (B,) -> (B, width)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.time_embed = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embedding of times in 0 .. T-1."""
        out: Tensor = self.time_embed(time_features(t.float(), self.features))
        return out


class DiffAE(nn.Module):
    """Encoder and noise-predicting decoder, with the state-dict layout of a published ``ema_model``.

    Args:
        image_size: height and width of the images.
        channels: base width of encoder and decoder.
        mult: width of each level of the decoder, in multiples of ``channels``.
        encoder_mult: the same for the encoder.
        latent_dim: width of z_sem and of the time embedding.
        attention: sizes of the feature maps that have self-attention.
    """

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 128,
        mult: Sequence[int] = (1, 1, 2, 2, 4, 4),
        encoder_mult: Sequence[int] = (1, 1, 2, 2, 4, 4, 4),
        latent_dim: int = 512,
        attention: Sequence[int] = (16,),
    ) -> None:
        super().__init__()
        self.image_size, self.latent_dim = image_size, latent_dim

        def block(inputs: int, outputs: int, how: Resample = None) -> DecoderBlock:
            return DecoderBlock(inputs, outputs, how, width=latent_dim)

        self.time_embed = TimeEmbedding(channels, latent_dim)
        self.input_blocks, widths = down_path(image_size, channels, mult, attention, block)
        width = widths[-1]
        self.middle_block = Stage(block(width, width), Attention(width), block(width, width))
        self.output_blocks = up_path(image_size, channels, mult, widths, attention, block)
        self.out = nn.Sequential(
            normalise(channels * mult[0]), nn.SiLU(), nn.Conv2d(channels * mult[0], 3, 3, padding=1)
        )
        self.encoder = SemanticEncoder(image_size, channels, encoder_mult, latent_dim, attention)

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Predicted noise (B, 3, S, S) of noised images x (B, 3, S, S) at times t (B,) with z_sem (B, latent_dim)."""
        time = self.time_embed(t)
        laterals = []
        for stage in self.input_blocks:
            x = stage(x, time, z)
            laterals.append(x)
        x = self.middle_block(x, time, z)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, laterals.pop()], dim=1), time, z)
        eps: Tensor = self.out(x)
        return eps

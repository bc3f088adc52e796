"""StyleGAN2: mapping z -> w and style-modulated synthesis w -> image.

Written from Karras et al. 2020 (arXiv 1912.04958, config F with skip connections; 2006.06676 for the names). Module
and parameter names follow the published networks, so an official ``G_ema`` state dict loads with ``strict=True``.
A batch shares the weights of a convolution and scales its activations (style before, demodulation after); this equals
scaling the weights for each sample but needs no grouped convolution.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LayerNoise = Literal["const", "none"] | Tensor
"""Per-pixel noise of a layer: the trained constant, none, or a draw (B, 1, resolution, resolution)."""
SQRT2 = math.sqrt(2.0)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2 and the gain sqrt(2) that keeps unit variance."""
    return F.leaky_relu(x, 0.2) * SQRT2


class FullyConnected(nn.Module):
    """Linear layer with equalized learning rate: weights are stored at unit scale, divided by lr_multiplier."""

    def __init__(self, inputs: int, outputs: int, bias_init: float = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias_init)))
        self.weight_gain, self.bias_gain = lr_multiplier / math.sqrt(inputs), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return F.linear(x * self.weight_gain, self.weight, self.bias * self.bias_gain)


class Mapping(nn.Module):
    """z (B, z_dim) -> w (B, w_dim), with the running mean ``w_avg`` that truncation pulls towards."""

    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, layers: int = 8, lr_multiplier: float = 0.01) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.layers = z_dim, c_dim, layers
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim else 0)] + [w_dim] * layers
        for i in range(layers):
            setattr(self, f"fc{i}", FullyConnected(widths[i], widths[i + 1], lr_multiplier=lr_multiplier))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        """Maps z, with one-hot labels c (B, c_dim) in a class-conditional network, to w (B, w_dim).

        Args:
            z: (B, z_dim), standard Gaussian.
            c: one-hot class labels, for class-conditional networks only.
            truncation_psi: w_avg + psi (w - w_avg); 1 leaves w as it is.
        """
        x = _unit_rms(z)
        if self.c_dim:
            assert c is not None
            x = torch.cat([x, _unit_rms(self.embed(c))], dim=1)
        for i in range(self.layers):
            x = leaky(getattr(self, f"fc{i}")(x))
        return self.w_avg.lerp(x, truncation_psi) if truncation_psi != 1.0 else x


def _unit_rms(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def styled_conv(
    x: Tensor, weight: Tensor, bias: Tensor, style: Tensor, scale: Tensor | None = None, up: Tensor | None = None
) -> Tensor:
    """Convolution whose input and output channels are scaled for each sample: equation 1 of arXiv 1912.04958.

    A lone sample scales the weights, which spares two passes over its pixels; a batch shares the weights and scales the
    activations.

    Args:
        x: (B, C, H, W).
        weight: (O, C, k, k), stored at unit scale; the gain 1 / sqrt(C k^2) is in the style or cancels.
        bias: (O,), added last.
        style: (B, C) scale of every input channel.
        scale: (B, O) scale of every output channel; None for 1.
        up: (4, 4) resampling filter; if given, the output is upsampled by 2.
    """
    if len(x) == 1:
        weight = weight * style[0, :, None, None]
        weight = weight if scale is None else weight * scale[0, :, None, None, None]
        return _convolve(x, weight, bias, up)
    x = x * style[:, :, None, None].to(x.dtype)
    if scale is None:
        return _convolve(x, weight, bias, up)
    out = _convolve(x, weight, None, up)
    return torch.addcmul(bias[:, None, None].to(x.dtype), out, scale[:, :, None, None].to(x.dtype))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, up: Tensor | None) -> Tensor:
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if up is None:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return fir(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), up * 4.0, bias, padding=1)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """One over the L2 norm of each output channel's modulated weights, (B, O): equation 3 of arXiv 1912.04958."""
    return (style.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()


def fir(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Filters every channel of x (B, C, H, W) with the same kernel (4, 4), then adds a bias (C,)."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.to(x.dtype).expand(channels, 1, -1, -1), bias, padding=padding, groups=channels)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Upsamples x (B, C, H, W) by 2 with a (4, 4) filter of unit sum."""
    channels = x.shape[1]
    weight = (kernel * 4.0).to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, per-pixel noise, bias, leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, up: bool = False, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", _filter())

    def forward(self, x: Tensor, w: Tensor, noise: LayerNoise) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), at twice the size if the layer upsamples."""
        style = self.affine(w)
        # The activation is homogeneous, so its gain is folded into the small factors instead of scaling every pixel.
        scale = demodulation(self.weight, style) * SQRT2  # (B, outputs)
        up = self.resample_filter if self.up else None
        out = styled_conv(x, self.weight, self.bias * SQRT2, style, scale, up)
        if isinstance(noise, Tensor) or noise == "const":
            pixels = noise if isinstance(noise, Tensor) else self.noise_const
            out = out.add_(pixels * (self.noise_strength * SQRT2))
        out = F.leaky_relu_(out, 0.2)
        return out if self.clamp is None else out.clamp(-self.clamp * SQRT2, self.clamp * SQRT2)


class ToRGB(nn.Module):
    """1x1 modulated convolution to an image, without demodulation."""

    def __init__(self, inputs: int, channels: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gain = 1.0 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, channels, H, W) in float32."""
        image = styled_conv(x, self.weight, self.bias, self.affine(w) * self.gain).float()
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution of the synthesis network."""

    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, channels: int, clamp: float | None
    ) -> None:
        super().__init__()
        if inputs:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=True, clamp=clamp)
        else:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        self.first = not inputs
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, clamp=clamp)
        self.torgb = ToRGB(outputs, channels, w_dim, clamp)
        self.register_buffer("resample_filter", _filter())

    @property
    def num_conv(self) -> int:
        """Number of latents its convolutions consume; torgb reads the next one."""
        return 1 if self.first else 2

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: Sequence[LayerNoise]
    ) -> tuple[Tensor, Tensor]:
        """Features and image so far, with ws (B, num_conv + 1, w_dim), to those at twice the resolution."""
        styles = iter(ws.unbind(dim=1))
        x = self.const.expand(len(ws), -1, -1, -1) if x is None else self.conv0(x, next(styles), noise[0])
        x = self.conv1(x, next(styles), noise[-1])
        rgb = self.torgb(x, next(styles))
        return x, rgb if image is None else upsample(image, self.resample_filter) + rgb


def _filter() -> Tensor:
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(tap, tap) / 64.0


class Synthesis(nn.Module):
    """ws (B, num_ws, w_dim) -> image (B, channels, resolution, resolution), about [-1, 1], not clamped."""

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        channels: int = 3,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(resolution)) + 1)]
        width = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        for r in self.resolutions:
            block = SynthesisBlock(width[r // 2] if r > 4 else 0, width[r], w_dim, r, channels, conv_clamp)
            setattr(self, f"b{r}", block)
        self.num_ws = 2 * len(self.resolutions)

    @property
    def noise_sizes(self) -> list[int]:
        """Height and width of each layer's noise, in the order of the layers."""
        return [r for r in self.resolutions for _ in range(1 if r == 4 else 2)]

    def forward(self, ws: Tensor, noise: Literal["const", "none"] | Tensor = "const") -> Tensor:
        """Draws images from one latent per layer.

        Args:
            ws: (B, num_ws, w_dim).
            noise: the trained constants, none, or a draw (B, sum of squared ``noise_sizes``).
        """
        layers: list[LayerNoise]
        if isinstance(noise, str):
            layers = [noise] * len(self.noise_sizes)
        else:
            parts = torch.split(noise, [r * r for r in self.noise_sizes], dim=1)
            layers = [p.reshape(-1, 1, r, r) for p, r in zip(parts, self.noise_sizes, strict=True)]
        x: Tensor | None = None
        image: Tensor | None = None
        at = 0
        for r in self.resolutions:
            block: SynthesisBlock = getattr(self, f"b{r}")
            x, image = block(x, image, ws[:, at : at + block.num_conv + 1], layers[at : at + block.num_conv])
            at += block.num_conv
        assert image is not None
        return image


class StyleGAN2(nn.Module):
    """Mapping and synthesis together, with the state-dict layout of an official ``G_ema``."""

    def __init__(
        self,
        z_dim: int = 512,
        c_dim: int = 0,
        w_dim: int = 512,
        img_resolution: int = 1024,
        img_channels: int = 3,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.w_dim, self.img_resolution = w_dim, img_resolution
        self.synthesis = Synthesis(w_dim, img_resolution, img_channels, channel_base, channel_max, conv_clamp)
        self.mapping = Mapping(z_dim, c_dim, w_dim, mapping_layers, mapping_lr_multiplier)

    @property
    def num_ws(self) -> int:
        """Number of latents the synthesis network takes, one per layer."""
        return self.synthesis.num_ws

    def draw(self, w: Tensor, noise: Literal["const", "none"] | Tensor = "const") -> Tensor:
        """Images (B, C, H, W) of latents in W (B, w_dim) or W+ (B, num_ws, w_dim)."""
        ws = w[:, None].expand(-1, self.num_ws, -1) if w.ndim == 2 else w
        image: Tensor = self.synthesis(ws, noise)
        return image

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        noise: Literal["const", "none"] | Tensor = "const",
    ) -> Tensor:
        """Images (B, C, H, W) of Gaussian z (B, z_dim)."""
        w: Tensor = self.mapping(z, c, truncation_psi)
        return self.draw(w, noise)

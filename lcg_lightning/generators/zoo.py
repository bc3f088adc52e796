"""The networks that ship with the package: a generator of SynthFaces with its encoder, and two judges.

Weights are in ``generators/weights``, one safetensors file and one card each; ``make zoo`` trains them again.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator, fingerprint
from lcg_lightning.generators.convnet import ConvNet
from lcg_lightning.generators.stylegan2 import StyleGAN2
from lcg_lightning.records import atomic

WEIGHTS = Path(__file__).parent / "weights"
CPU_CHUNK = 32
"""Images that a processor draws at a time: their feature maps stay in its cache."""


class StyleGAN2Generator(Generator):
    """A StyleGAN2 over W, with an encoder into W where one was trained."""

    def __init__(self, network: StyleGAN2, encoder: ConvNet | None = None) -> None:
        super().__init__()
        self.network, self.encoder = network, encoder
        self.latent_shape, self.image_size = (network.w_dim,), network.img_resolution
        self.to(memory_format=torch.channels_last)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of latents w (B, w_dim)."""
        at_once = CPU_CHUNK if latents.device.type == "cpu" else len(latents)
        parts = [self.network.draw(part) for part in torch.split(latents, max(at_once, 1))]
        return torch.cat(parts).clamp(-1.0, 1.0)

    def encode(self, images: Tensor) -> Tensor:
        """Latents w (B, w_dim) of images (B, 3, H, W) in [-1, 1]."""
        if self.encoder is None:
            return super().encode(images)
        return self.encoder(images.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Latents w (n, w_dim) of standard Gaussian z."""
        z = torch.randn(n, self.network.mapping.z_dim, generator=generator)
        w: Tensor = self.network.mapping(z.to(self.network.mapping.w_avg.device))
        return w


class AttributeJudge(nn.Module):
    """An attribute classifier on images."""

    def __init__(self, network: ConvNet, schema: AttributeSchema, name: str) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.schema, self.name = schema, name
        self.fingerprint = fingerprint(network)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, K), laid out by the schema, of images (B, 3, H, W) in [-1, 1]."""
        out: Tensor = self.network(images)
        return out


class IdentityNetwork(nn.Module):
    """An embedding of who is shown, and, one layer below, the features that Fréchet distances compare."""

    def __init__(self, network: ConvNet, name: str) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.name, self.num_features = name, network.num_features
        self.fingerprint = fingerprint(network)

    def embed(self, images: Tensor) -> Tensor:
        """Identity embeddings (B, d), compared by cosine, of images (B, 3, H, W) in [-1, 1]."""
        out: Tensor = self.network(images)
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, num_features) of images (B, 3, H, W) in [-1, 1]."""
        return self.network.features(images)


def load_generator(name: str = "synthfaces") -> StyleGAN2Generator:
    """A generator of the zoo.

    Raises:
        UserError: no such name.
    """
    state, config = read(f"{name}-generator")
    network = StyleGAN2(**config["network"])
    encoder = ConvNet(**config["encoder"])
    _fill(network, state, "network.")
    _fill(encoder, state, "encoder.")
    return StyleGAN2Generator(network, encoder)


def load_attribute_judge(name: str = "synthfaces") -> AttributeJudge:
    """An attribute classifier of the zoo."""
    state, config = read(f"{name}-attributes")
    network = ConvNet(**config["network"])
    _fill(network, state, "network.")
    return AttributeJudge(network, AttributeSchema.from_json(config["attributes"]), f"{name}-attributes")


def load_identity_network(name: str = "synthfaces") -> IdentityNetwork:
    """An identity network of the zoo."""
    state, config = read(f"{name}-identity")
    network = ConvNet(**config["network"])
    _fill(network, state, "network.")
    return IdentityNetwork(network, f"{name}-identity")


def save(name: str, networks: dict[str, nn.Module], config: dict[str, Any], folder: Path = WEIGHTS) -> Path:
    """Writes networks, in half precision but for normalisation statistics, with what rebuilds them.

    Args:
        name: file stem.
        networks: state-dict prefix to network.
        config: plain data; the constructor arguments of each network under its prefix.
        folder: where to write.
    """
    state = {
        f"{prefix}.{key}": (v if "running" in key or not v.is_floating_point() else v.half()).contiguous()
        for prefix, network in networks.items()
        for key, v in network.state_dict().items()
    }
    path = folder / f"{name}.safetensors"
    with atomic(path) as temporary:
        save_file(state, temporary, metadata={"config": json.dumps(config)})
    return path


def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and configuration of a network of the zoo."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors")))
        raise UserError(f"the zoo has no network {name!r} (it has: {known})")
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        return {key: file.get_tensor(key) for key in file.keys()}, config  # noqa: SIM118


def _fill(network: nn.Module, state: dict[str, Tensor], prefix: str) -> None:
    network.load_state_dict(
        {
            k.removeprefix(prefix): v.float() if v.is_floating_point() else v
            for k, v in state.items()
            if k.startswith(prefix)
        }
    )

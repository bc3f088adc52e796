"""Identity networks, which recognize the person in an image."""

from collections.abc import Callable

from torch import Tensor, nn

from lcg_lightning.formats.fingerprint import fingerprint as weights_fingerprint
from lcg_lightning.judges.parts import in_parts


class IdentityNetwork(nn.Module):
    """A frozen identity embedding, and the features that Fréchet distances compare.

    Subclass it for your own network.

    Args:
        network: images (B, 3, H, W) in [-1, 1] to embeddings (B, d).
        num_features: width of a feature row.
        name: its name in messages and records; the class name by default.
        fingerprint: hash of everything that its outputs depend on; by default a hash of the weights.
        image_size: the only image height and width that it accepts; any by default.
        features: images to features (B, num_features); the embedding by default.
    """

    def __init__(
        self,
        network: nn.Module,
        num_features: int,
        name: str | None = None,
        fingerprint: str | None = None,
        image_size: int | None = None,
        features: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.num_features, self.image_size = num_features, image_size
        self.features = features or self.embed
        self.name = name or type(self).__name__
        self.fingerprint = fingerprint or weights_fingerprint(network)

    def embed(self, images: Tensor) -> Tensor:
        """Identity embeddings (B, d), compared by cosine, of images (B, 3, H, W) in [-1, 1]."""
        return in_parts(self.network, images)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, num_features) of images (B, 3, H, W) in [-1, 1]."""
        return in_parts(self.features, images)

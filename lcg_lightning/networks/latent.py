"""The two networks on latents. Time enters through a table that a sampler computes once for its whole grid."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcg_lightning.devices import upload
from lcg_lightning.networks.time import TIME_FEATURES, time_features


class LatentMLP(nn.Module):
    """MLP on noised latents (B, D) at times t, following DiffAE's latent net (arXiv 2111.15640).

    Every hidden layer is Linear, times (1 + scale(t)), LayerNorm, SiLU; the input is concatenated before every layer
    except the first. One matrix produces the scales of all layers, so a time shared by a batch costs one row.

    Args:
        latent_dim: D.
        hidden: width of the hidden layers.
        layers: number of linear layers, including the output layer; at least 2.
        outputs: width of the output; D if None.
        time_hidden: width of the time embedding.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: int = 768,
        layers: int = 6,
        outputs: int | None = None,
        time_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.time_embed = nn.Sequential(
            nn.Linear(TIME_FEATURES, time_hidden), nn.SiLU(), nn.Linear(time_hidden, time_hidden), nn.SiLU()
        )
        self.time_scale = nn.Linear(time_hidden, (layers - 1) * hidden)
        widths = [latent_dim] + [hidden + latent_dim] * (layers - 1)
        self.linears = nn.ModuleList(nn.Linear(w, hidden) for w in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in self.linears)
        self.output = nn.Linear(widths[-1], latent_dim if outputs is None else outputs)

    def time_table(self, t: Tensor) -> Tensor:
        """Factors 1 + scale, (S, layers - 1, hidden), of fractional time indices t (S,) in [0, T)."""
        return self.factors(self.embed_time(t))

    def embed_time(self, t: Tensor) -> Tensor:
        """The time embedding (S, time_hidden) of fractional time indices t (S,), before its last activation."""
        t = t if t.is_floating_point() else t.float()
        like = self.time_scale.weight
        embedding: Tensor = self.time_embed[:-1](upload(time_features(t).to(like.dtype), like.device))
        return embedding

    def factors(self, embedding: Tensor) -> Tensor:
        """Factors 1 + scale, (S, layers - 1, hidden), of time embeddings (S, time_hidden)."""
        scales: Tensor = self.time_scale(F.silu(embedding))
        return 1 + scales.reshape(*embedding.shape[:-1], len(self.linears), self.hidden)

    def forward_at(self, z: Tensor, row: Tensor) -> Tensor:
        """Outputs (B, outputs) for z (B, D) with a table row (layers - 1, hidden), or one row a sample.

        They have the dtype of z, also where autocast computes in another.
        """
        h = z
        for i, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            h = linear(h if i == 0 else torch.cat([h, z], dim=-1))  # (B, hidden)
            h = F.silu(norm(h * row[..., i, :]))
        out: Tensor = self.output(torch.cat([h, z], dim=-1))
        return out.to(z.dtype)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Outputs (B, outputs) for z (B, D) at times t (B,)."""
        return self.forward_at(z, self.time_table(t))


class ConditionalMLP(LatentMLP):
    """A :class:`LatentMLP` whose time embedding is added to an embedding of conditions, given as features (B, C).

    Features of 0 stand for no condition. A table row is a time embedding (time_hidden,), shared by the batch.

    Args:
        latent_dim: D.
        num_features: C.
        hidden: width of the hidden layers.
        layers: number of linear layers, including the output layer; at least 2.
        time_hidden: width of the time embedding, and of the conditions'.
    """

    def __init__(self, latent_dim: int, num_features: int, hidden: int, layers: int, time_hidden: int) -> None:
        super().__init__(latent_dim, hidden, layers, time_hidden=time_hidden)
        self.num_features = num_features
        self.label_embed = nn.Sequential(
            nn.Linear(num_features, time_hidden), nn.SiLU(), nn.Linear(time_hidden, time_hidden)
        )

    def time_table(self, t: Tensor) -> Tensor:
        """Time embeddings (S, time_hidden) of fractional time indices t (S,) in [0, T)."""
        return self.embed_time(t)

    def forward_at(self, z: Tensor, row: Tensor, features: Tensor | None = None) -> Tensor:
        """Outputs (B, D) for z (B, D) with a table row (time_hidden,), or one row a sample, under features (B, C)."""
        if features is None:
            features = z.new_zeros(1, self.num_features)
        return super().forward_at(z, self.factors(row + self.label_embed(features)))

    def forward(self, z: Tensor, t: Tensor, features: Tensor | None = None) -> Tensor:
        """Outputs (B, D) for z (B, D) at times t (B,) under features (B, C)."""
        return self.forward_at(z, self.time_table(t), features)


class LatentClassifierNet(nn.Module):
    """All attribute heads p(c | z_t, t) on one trunk and one output matrix, calibrated per noise level.

    Calibration is an affine map of the outputs, constant within each of ``buckets`` equal ranges of time: a
    gain on logits (the inverse temperature) and a shift on log variances. It starts as the identity.

    Args:
        latent_dim: D.
        num_outputs: K, the total width of the heads (``AttributeSchema.num_outputs``).
        num_steps: T, the number of steps of the noise schedule.
        hidden: width of the hidden layers.
        layers: number of linear layers, including the heads.
        buckets: number of time ranges, each calibrated separately.
    """

    gain: Tensor
    shift: Tensor

    def __init__(
        self,
        latent_dim: int,
        num_outputs: int,
        num_steps: int = 1000,
        hidden: int = 512,
        layers: int = 4,
        buckets: int = 10,
    ) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.trunk = LatentMLP(latent_dim, hidden, layers, outputs=num_outputs)
        self.register_buffer("gain", torch.ones(buckets, num_outputs))
        self.register_buffer("shift", torch.zeros(buckets, num_outputs))

    def bucket(self, t: Tensor) -> Tensor:
        """Index (...,) of the calibration range that times t (...,) belong to."""
        return (t * (len(self.gain) / self.num_steps)).long().clamp(0, len(self.gain) - 1)

    def time_table(self, t: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One row (trunk factors (layers - 1, hidden), gain (K,), shift (K,)) per time index in t (S,)."""
        at = upload(self.bucket(t), self.gain.device)
        return list(zip(self.trunk.time_table(t), self.gain[at], self.shift[at], strict=True))

    def forward_at(self, z: Tensor, row: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Calibrated outputs (B, K) for z (B, D) at the shared time of a table row."""
        factors, gain, shift = row
        return self.trunk.forward_at(z, factors) * gain + shift

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Calibrated outputs (B, K) for z (B, D) at times t (B,)."""
        at = self.bucket(t)
        return self.forward_at(z, (self.trunk.time_table(t), self.gain[at], self.shift[at]))

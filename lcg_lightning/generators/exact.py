"""The exact world: SynthFaces behind a known curved map, so that all that a method should find is known."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg_lightning.conditions import And, Condition, Is, Not, Or, Scaled
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.formats import tensors
from lcg_lightning.formats.fingerprint import combine, fingerprint
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.conditional import attempt_faces, continuous_targets, draw_faces
from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.synthfaces.faces import (
    EDGE,
    FACTORS,
    IDENTITY_DIM,
    SCENE_DIM,
    SCHEMA,
    Z_DIM,
    Faces,
    faces_from_uniforms,
    uniforms,
    with_labels,
    with_uniforms,
)
from lcg_lightning.synthfaces.renderer import IMAGE_SIZE, render

LATENT_DIM = 64
LAYERS = 4
SKEW, TAIL = 1.0, 0.3
"""Standard deviations of skews and log tails at curvature 1."""
BLOCK = 8192
"""Draws that the conditional sampler makes at a time."""
_LOG_2PI = math.log(2 * math.pi)


class ExactWorld(Generator):
    """Latents w = T(z) of standard Gaussian z, whose first numbers are a face of SynthFaces, drawn by its renderer.

    T is fixed, smooth and invertible: between five seeded orthogonal mixings lie four layers of the monotone
    function x -> (sinh(d asinh(x) + s) - sinh(s)) / (d cosh(s)) of each coordinate, with slope 1 at 0. Skews s and
    tails log d are seeded draws that grow with the curvature. At curvature 0 T is a rotation, so attributes are as
    linear in w as they are in z. A network of two hidden layers, trained on 12,000 latents, tells the binary attributes
    of others with accuracy .97 at curvature 0, .95 at .25, .92 at .5 and .86 at 1.

    Nothing here is learned: attributes and identity of a latent, its density, samples of any condition and the
    counterfactual of any edit are computed. All of it runs in double precision.

    Args:
        curvature: from 0 to 1.
        image_size: pixels along an edge of the pictures.
        encoder: pictures (B, 3, 64, 64) to the factors of their faces (B, FACTORS) in [0, 1]: identity, scene and
            labels on the unit scale. What no picture shows, how far a binary attribute is from its border and the
            numbers beside the face, is set to its middle.

    Raises:
        UserError: a curvature outside of its range, or pictures that are too small.
    """

    schema = SCHEMA
    z_dim = LATENT_DIM
    mixings: Tensor
    skews: Tensor
    tails: Tensor

    def __init__(self, curvature: float = 0.3, image_size: int = 64, encoder: nn.Module | None = None) -> None:
        super().__init__()
        if not 0.0 <= curvature <= 1.0:
            raise UserError(f"synthfaces-exact: curvature is {curvature:g}; give a number from 0 to 1")
        if image_size < 16:
            raise UserError(f"synthfaces-exact: image_size is {image_size}; give 16 or more")
        self.curvature, self.image_size, self.latent_shape = curvature, image_size, (LATENT_DIM,)
        self.encoder = encoder
        draw = torch.Generator().manual_seed(0)
        square = torch.randn(LAYERS + 1, LATENT_DIM, LATENT_DIM, generator=draw, dtype=torch.float64)
        q, r = torch.linalg.qr(square)
        self.register_buffer("mixings", q * r.diagonal(dim1=1, dim2=2).sign()[:, None])
        shape = (LAYERS, LATENT_DIM)
        self.register_buffer("skews", SKEW * curvature * torch.randn(shape, generator=draw, dtype=torch.float64))
        self.register_buffer("tails", TAIL * curvature * torch.randn(shape, generator=draw, dtype=torch.float64))

    @cached_property
    def fingerprint(self) -> str:
        """Of the map's definition, whatever the encoder: its last bits depend on the number of threads."""
        definition = ("synthfaces-exact", LATENT_DIM, LAYERS, SKEW, TAIL, float(self.curvature))
        return combine(repr(definition).encode())

    @property
    def truth(self) -> "ExactWorld":
        """Itself: labels, identity and scene of every latent are known."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Size of the pictures and the encoder's fingerprint; the curvature is in the world's own."""
        return {"image_size": self.image_size, "encoder": None if self.encoder is None else fingerprint(self.encoder)}

    def can(self, method: str) -> bool:
        """Sampling always, encoding where there is an encoder."""
        return super().can(method) and not (method == "encode" and self.encoder is None)

    # the map

    def to_latents(self, z: Tensor) -> Tensor:
        """T: z (B, 64) to w (B, 64), in the precision of z."""
        return self._forward(z.double())[0].to(z.dtype)

    def coordinates(self, latents: Tensor) -> Tensor:
        """The z (B, 64) float64 of latents (B, 64): independent standard Gaussian numbers where those are drawn."""
        return self._inverse(latents.double())

    def to_z(self, latents: Tensor) -> Tensor:
        """The inverse of T: w (B, 64) to z (B, 64), in the precision of w."""
        return self._inverse(latents.double()).to(latents.dtype)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Log p(w) (B,) in nats, double: log N(z; 0, I) minus the log of T's volume change there."""
        z = self._inverse(latents.double())
        log_volume = self._forward(z)[1]
        return -0.5 * (z.square().sum(1) + LATENT_DIM * _LOG_2PI) - log_volume

    def _forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """W (B, 64) and log |det dT/dz| (B,)."""
        x, log_volume = z @ self.mixings[0].T, z.new_zeros(len(z))
        for mixing, s, t in zip(self.mixings[1:], self.skews, self.tails, strict=True):
            inner = t.exp() * torch.asinh(x) + s
            slope = torch.cosh(inner) / (torch.cosh(s) * (1.0 + x.square()).sqrt())
            log_volume = log_volume + slope.log().sum(1)
            x = ((torch.sinh(inner) - torch.sinh(s)) / (t.exp() * torch.cosh(s))) @ mixing.T
        return x, log_volume

    def _inverse(self, w: Tensor) -> Tensor:
        x = w
        for mixing, s, t in zip(self.mixings[1:].flip(0), self.skews.flip(0), self.tails.flip(0), strict=True):
            outer = (x @ mixing) * t.exp() * torch.cosh(s) + torch.sinh(s)
            x = torch.sinh((torch.asinh(outer) - s) / t.exp())
        return x @ self.mixings[0]

    # a generator like any other

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, image_size, image_size) in [-1, 1] of latents (B, 64); without gradients."""
        return render(self.faces(latents), self.image_size)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, 64) of images (B, 3, H, W) in [-1, 1], which are scaled to 64 pixels."""
        if self.encoder is None:
            return super().encode(images)
        if images.shape[-1] != IMAGE_SIZE:
            images = F.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
        found = self.encoder(images).double().clamp(EDGE, 1.0 - EDGE)
        identity, scene, unit = found.tensor_split((IDENTITY_DIM, IDENTITY_DIM + SCENE_DIM), dim=1)
        labels = SCHEMA.natural(unit)
        labels[:, :6] = (unit[:, :6] > 0.5).double()
        middle = torch.cat([torch.full_like(unit, 0.5), identity, scene], 1)
        u, _ = with_labels(middle, labels)
        z = torch.zeros(len(u), LATENT_DIM, dtype=torch.float64, device=u.device)
        z[:, FACTORS:Z_DIM] = 1.0
        z[:, :Z_DIM] *= math.sqrt(Z_DIM / (Z_DIM - FACTORS))
        z[:, :Z_DIM] = with_uniforms(z[:, :Z_DIM], u)
        return self._forward(z)[0].float()

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Latents (n, 64) of standard Gaussian z."""
        z = torch.randn(n, LATENT_DIM, generator=generator).to(self.mixings.device)
        return self.map_z(z)

    def map_z(self, z: Tensor) -> Tensor:
        """T, as :meth:`to_latents`."""
        return self.to_latents(z)

    # what is known of a latent

    def faces(self, latents: Tensor) -> Faces:
        """Identity, scene and labels of latents (B, 64), float32."""
        found = faces_from_uniforms(self._uniforms(latents))
        return Faces(found.identity.float(), found.scene.float(), found.labels.float())

    def labels(self, latents: Tensor) -> Tensor:
        """Labels (B, 8) in natural units of latents (B, 64)."""
        return self.faces(latents).labels

    def identity_distance(self, latents: Tensor, others: Tensor) -> Tensor:
        """Mean absolute difference (B,) of the identity factors of two batches of latents; 1/3 for strangers."""
        return (self.faces(latents).identity - self.faces(others).identity).abs().mean(1)

    def scene_distance(self, latents: Tensor, others: Tensor) -> Tensor:
        """Mean absolute difference (B,) of the scene factors of two batches of latents; 1/3 for strangers."""
        return (self.faces(latents).scene - self.faces(others).scene).abs().mean(1)

    def counterfactual(self, latents: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What an edit should make of latents (B, 64): the labels asked for, and nothing else changed.

        Args:
            latents: (B, 64).
            targets: label rows (B, 8) in natural units, NaN where nothing is asked.

        Returns:
            Latents (B, 64), and (B,) bool that is False where a row asks for what never occurs, see
            :func:`~lcg_lightning.synthfaces.faces.with_labels`.
        """
        z = self._inverse(latents.double())
        u, possible = with_labels(uniforms(z[:, :Z_DIM]), targets)
        moved = torch.cat([with_uniforms(z[:, :Z_DIM], u), z[:, Z_DIM:]], 1)
        return self._forward(moved)[0].to(latents.dtype), possible

    def sample_conditional(
        self, condition: Condition, n: int, generator: torch.Generator, max_draws: int = 2_000_000
    ) -> Tensor:
        """Independent exact samples (n, 64) of p(w | condition).

        Continuous attributes are set to their targets, which are independent of all else that z holds; for the
        others, draws that do not satisfy the condition are rejected.

        Args:
            condition: no scale, and no targets that differ from sample to sample.
            n: samples.
            generator: random numbers.
            max_draws: draws to give up after.

        Raises:
            UserError: the condition is too rare for that many draws, or one that this sampler does not take.
        """
        _refuse_no_event(condition)
        exact = bool(continuous_targets(condition, 1).isfinite().any())
        found: list[Tensor] = []
        accepted, draws = 0, 0
        while accepted < n:
            if draws >= max_draws:
                raise UserError(
                    f"synthfaces-exact: {accepted} of {draws:,} draws satisfy the condition, an acceptance rate of "
                    f"{accepted / draws:.2g}; {n} samples need more than the {max_draws:,} draws allowed"
                )
            size = min(BLOCK, max_draws - draws)
            z = torch.randn(size, LATENT_DIM, generator=generator, dtype=torch.float64).to(self.mixings.device)
            u, keep = attempt_faces(z[:, :Z_DIM], condition)
            z = z[keep]
            if exact:
                z = torch.cat([with_uniforms(z[:, :Z_DIM], u[keep]), z[:, Z_DIM:]], 1)
            found.append(z)
            accepted, draws = accepted + len(z), draws + size
        return self._forward(torch.cat(found)[:n])[0].float()

    def sample(self, condition: Condition, noise: SampleNoise) -> tuple[Tensor, Tensor]:
        """An exact sample of p(w | condition) for each sample of the noise, whose draws belong to it alone.

        Args:
            condition: any tree; targets per sample are (B,).
            noise: noise of 64 numbers.

        Returns:
            Latents (B, 64) float32, and (B,) bool that is False where the condition is too rare, see
            :func:`~lcg_lightning.generators.conditional.draw_faces`.

        Raises:
            UserError: a continuous target under ~ or |.
        """
        z, u, found = draw_faces(condition, noise)
        return self._forward(torch.cat([with_uniforms(z[:, :Z_DIM], u), z[:, Z_DIM:]], 1))[0].float(), found

    def outputs(self, latents: Tensor) -> Tensor:
        """The truth as a classifier would put it (B, K): sure logits, and values with next to no variance."""
        unit = SCHEMA.unit(self.labels(latents))
        parts: list[Tensor] = []
        for attribute, value in zip(SCHEMA, unit.unbind(1), strict=True):
            if attribute.kind == "binary":
                parts.append(60.0 * value - 30.0)
            else:
                parts += [value, torch.full_like(value, -10.0)]
        return torch.stack(parts, 1)

    def _uniforms(self, latents: Tensor) -> Tensor:
        return uniforms(self._inverse(latents.double())[:, :Z_DIM])


class FactorEncoder(nn.Module):
    """Pictures (B, 3, 64, 64) to the factors of their faces (B, FACTORS), through an encoder into another space."""

    def __init__(self, encoder: nn.Module, readout: nn.Module) -> None:
        super().__init__()
        self.encoder, self.readout = encoder, readout

    def forward(self, images: Tensor) -> Tensor:
        """Identity, scene and labels on the unit scale; of binary attributes, the probability."""
        out: Tensor = self.readout(self.encoder(images))
        first = IDENTITY_DIM + SCENE_DIM
        return torch.cat([out[:, :first], out[:, first : first + 6].sigmoid(), out[:, first + 6 :]], 1)


def factor_encoder(path: Path) -> FactorEncoder | None:
    """The encoder and the factors' readout in a file of the zoo's generator; None in one that has no readout."""
    state, config = tensors.read(path)
    readout = tensors.part(state, "readout")
    if not readout:
        return None
    network = FactorEncoder(ConvNet(**config["encoder"]), nn.Linear(config["encoder"]["num_outputs"], FACTORS))
    network.encoder.load_state_dict(tensors.part(state, "encoder"))
    network.readout.load_state_dict(readout)
    return network


def _refuse_no_event(condition: Condition) -> None:
    """Raises a UserError for a scale, or a target that differs from sample to sample."""
    match condition:
        case Is(name, Tensor()):
            raise UserError(f"synthfaces-exact: {name} has a target for each sample; ask for one value")
        case And(terms) | Or(terms):
            for term in terms:
                _refuse_no_event(term)
        case Not(term):
            _refuse_no_event(term)
        case Scaled():
            raise UserError("synthfaces-exact: a condition with a scale is no event; leave the scale out")

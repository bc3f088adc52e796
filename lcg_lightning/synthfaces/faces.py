"""The faces: their factors, their attributes and the joint distribution of both.

A face is the direction of a vector z of :data:`Z_DIM` numbers, standard Gaussian when faces are drawn. Its length
means nothing, as in StyleGAN2, whose mapping network sees z / rms(z) alone. :func:`uniforms` makes 24 independent
uniform numbers of a direction, exactly; they are eight attributes, an identity (12 factors: skin, hair, face shape,
eyes, brows, nose, mouth) and a scene (4 factors: background, clothes, hat), and
:func:`~lcg_lightning.synthfaces.renderer.render` draws them.

The joint distribution of the attributes, with a the age on a scale from 0 (18 years) to 1 (80 years):

=============  ==========================================================================================
Age            uniform between 18 and 80 years
Yaw            normal, standard deviation 12 degrees, cut at 30 degrees to either side
Eyeglasses     probability 0.12 + 0.50 a
Smiling        probability 0.60 - 0.15 a
Beard          probability 0.50 with short hair; never with long hair
Bald           probability 0.04 + 0.36 a with short hair; never with long hair
Hat            probability 0.32 - 0.14 a
Gray_Hair      probability 0 up to a = 0.25, then rising linearly to 0.85
=============  ==========================================================================================

Hair is long on half of the faces. Given age and hair length the binary attributes are independent. The combinations
in :data:`HELD_OUT` never occur in the training and validation splits; the test split follows the joint.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from lcg_lightning.attributes import Attribute, AttributeSchema

SCHEMA = AttributeSchema(
    (
        Attribute("Eyeglasses"),
        Attribute("Smiling"),
        Attribute("Beard"),
        Attribute("Bald"),
        Attribute("Hat"),
        Attribute("Gray_Hair"),
        Attribute("Age", "continuous", low=18.0, high=80.0),
        Attribute("Yaw", "continuous", low=-30.0, high=30.0),
    )
)
"""Age in years, yaw in degrees (positive turns towards the right edge of the picture)."""

IDENTITY = (
    "skin",
    "hair colour",
    "hair length",
    "parting",
    "face width",
    "face height",
    "jaw",
    "eye size",
    "eye colour",
    "brows",
    "nose",
    "mouth",
)
"""Names of the identity factors, columns of :attr:`Faces.identity`."""
SCENE = ("background hue", "background light", "clothes", "hat and frame")
"""Names of the scene factors, columns of :attr:`Faces.scene`."""
LABELS_DIM, IDENTITY_DIM, SCENE_DIM, SLACK_DIM = len(SCHEMA), len(IDENTITY), len(SCENE), 8
FACTORS = LABELS_DIM + IDENTITY_DIM + SCENE_DIM
"""Numbers that make a face: those of its labels first, then identity and scene."""
Z_DIM = FACTORS + SLACK_DIM
"""Width of z. Its last numbers are seen nowhere: they leave the others room to vary on their own."""
HELD_OUT = (
    ("Beard", "Hat", "Smiling"),
    ("Bald", "Eyeglasses", "Smiling"),
    ("Eyeglasses", "Gray_Hair", "Hat"),
)
HAIR_LENGTH = IDENTITY.index("hair length")
YAW_DEVIATION = 12.0
EDGE = 1e-5
"""What is moved stays this far off the border of a label, so that rounding to float32 does not change it."""


@dataclass(frozen=True)
class Faces:
    """A batch of faces.

    Attributes:
        identity: (B, 12) in (0, 1), uniform each.
        scene: (B, 4) in (0, 1), uniform each.
        labels: (B, 8) attribute labels in natural units, columns as in :data:`SCHEMA`.
    """

    identity: Tensor
    scene: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def sphere_cdf(s: Tensor, dim: int) -> Tensor:
    """Distribution function of one coordinate s in [-1, 1] of a uniform point on the unit sphere in ``dim`` dimensions.

    The density is proportional to cos(x)^(dim - 2) at s = sin(x); its integral is a finite recursion in dim.
    """
    s = s.clamp(-1.0, 1.0)
    cosine = (1.0 - s.square()).sqrt()
    power = (dim - 2) % 2
    integral, half = (s, 1.0) if power else (torch.asin(s), math.pi / 2)
    while power < dim - 2:
        power += 2
        integral = s * cosine ** (power - 1) / power + integral * ((power - 1) / power)
        half *= (power - 1) / power
    return (0.5 + 0.5 * integral / half).clamp(0.0, 1.0)


def _remainder(z: Tensor) -> Tensor:
    """Length (B, FACTORS) of each coordinate together with all that follow it."""
    return z.square().flip(1).cumsum(1).flip(1)[:, :FACTORS].sqrt().clamp_min(1e-12)


def uniforms(z: Tensor) -> Tensor:
    """The directions of z (B, Z_DIM) as numbers (B, FACTORS) in [0, 1], independent and uniform for Gaussian z.

    Each coordinate is measured against the length of itself and those after it. Given the ones before, that ratio
    is a coordinate of a uniform point on the sphere of the dimensions that are left.
    """
    s = z[:, :FACTORS] / _remainder(z)
    return torch.stack([sphere_cdf(column, Z_DIM - i) for i, column in enumerate(s.unbind(1))], 1)


def with_uniforms(z: Tensor, u: Tensor) -> Tensor:
    """The z (B, Z_DIM) of given :func:`uniforms` u (B, FACTORS), with the length and the slack's direction of another.

    Args:
        z: (B, Z_DIM).
        u: (B, FACTORS) in (0, 1).
    """
    slack = z[:, FACTORS:].double()
    left = z.double().square().sum(1).sqrt()
    columns = []
    for i, target in enumerate(u.double().unbind(1)):
        s = _sphere_quantile(target, Z_DIM - i)
        columns.append(left * s)
        left = left * (1.0 - s.square()).clamp_min(0.0).sqrt()
    rest = slack / slack.square().sum(1, keepdim=True).sqrt().clamp_min(1e-300) * left[:, None]
    return torch.cat([torch.stack(columns, 1), rest], 1).to(z.dtype)


def _sphere_quantile(u: Tensor, dim: int) -> Tensor:
    """Inverse of :func:`sphere_cdf` in four or more dimensions, by bisection and then Newton's method."""
    low, high = torch.full_like(u, -1.0), torch.full_like(u, 1.0)
    for _ in range(12):
        middle = (low + high) / 2
        below = sphere_cdf(middle, dim) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    s = (low + high) / 2
    peak = math.exp(math.lgamma(dim / 2) - math.lgamma((dim - 1) / 2)) / math.sqrt(math.pi)
    for _ in range(5):
        density = peak * (1.0 - s.square()) ** ((dim - 3) / 2)
        s = torch.clamp(s - (sphere_cdf(s, dim) - u) / density.clamp_min(1e-30), low, high)
    return s


def probabilities(age: Tensor, hair_length: Tensor) -> Tensor:
    """Probability (B, 6) of each binary attribute, from age in [0, 1] and the uniform number of the hair's length."""
    short = (hair_length < 0.5).to(age.dtype)
    return torch.stack(
        [
            0.12 + 0.50 * age,
            0.60 - 0.15 * age,
            0.50 * short,
            (0.04 + 0.36 * age) * short,
            0.32 - 0.14 * age,
            0.85 * ((age - 0.25) / 0.75).clamp(min=0),
        ],
        dim=1,
    )


def faces_from_z(z: Tensor) -> Faces:
    """Faces that the directions of z (B, Z_DIM) stand for; deterministic."""
    return faces_from_uniforms(uniforms(z))


def faces_from_uniforms(u: Tensor) -> Faces:
    """Faces of independent uniform numbers u (B, FACTORS)."""
    v, identity, scene = u.tensor_split((LABELS_DIM, LABELS_DIM + IDENTITY_DIM), dim=1)
    age = v[:, SCHEMA.index("Age")]
    binary = (v[:, :6] < probabilities(age, identity[:, HAIR_LENGTH])).to(u.dtype)
    yaw = (YAW_DEVIATION * ndtri(v[:, SCHEMA.index("Yaw")])).clamp(-30.0, 30.0)
    labels = torch.cat([binary, (18.0 + 62.0 * age)[:, None], yaw[:, None]], dim=1)
    return Faces(identity, scene, labels)


def independent_faces(z: Tensor) -> Faces:
    """Faces of rows z (B, Z_DIM) whose attributes are independent of each other and of the identity.

    Each binary attribute shows on half of them.
    """
    u = uniforms(z)
    faces = faces_from_uniforms(u)
    return Faces(faces.identity, faces.scene, torch.cat([(u[:, :6] < 0.5).to(u.dtype), faces.labels[:, 6:]], dim=1))


def with_labels(u: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest faces with other labels: the exact counterfactual of an edit, on :func:`uniforms`.

    Identity, scene and every attribute that is not asked for stay. Where a binary attribute changes, its number
    crosses over to the same relative distance from the border; where age moves the border of an attribute that is
    not asked for, its number keeps its relative place on its side.

    Args:
        u: (B, FACTORS).
        targets: (B, 8) labels in natural units, NaN where nothing is asked.

    Returns:
        u of the changed faces, and (B,) bool: False where labels were asked for, or should have stayed, that never
        occur together, such as a beard beside long hair or grey hair at twenty; there, that attribute does not show.
    """
    targets = targets.to(u)
    asked = ~targets.isnan()
    age, hair = SCHEMA.index("Age"), LABELS_DIM + HAIR_LENGTH
    border = probabilities(u[:, age], u[:, hair])
    shown = u[:, :6] < border
    depth = torch.where(shown, u[:, :6] / border.clamp_min(1e-12), (u[:, :6] - border) / (1.0 - border))
    out = u.clone()
    for name in ("Age", "Yaw"):
        i = SCHEMA.index(name)
        out[:, i] = torch.where(asked[:, i], _continuous(name, targets[:, i]), u[:, i])
    border = probabilities(out[:, age], u[:, hair])
    wanted = torch.where(asked[:, :6], targets[:, :6] > 0.5, shown)
    show = wanted & (border > 0)
    depth = torch.where(show == shown, depth, 1.0 - depth).clamp(EDGE, 1.0 - EDGE)
    moved = torch.where(show, depth * border, border + depth * (1.0 - border))
    out[:, :6] = torch.where((show == shown) & ~asked[:, age, None], u[:, :6], moved)
    return out, (show == wanted).all(1)


def attempt(z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One attempt of the rejection sampler of faces given labels, from Gaussian rows z (B, Z_DIM).

    Continuous attributes, which depend on nothing before them, are set to their targets; binary ones are left to
    chance. Accepted rows follow the joint given the targets, exactly.

    Args:
        z: (B, Z_DIM).
        targets: (B, 8) labels in natural units, NaN where nothing is asked.

    Returns:
        u (B, FACTORS), and (B,) bool: the rows that show what was asked.
    """
    targets = targets.to(z)
    asked = ~targets.isnan()
    u = uniforms(z)
    for name in ("Age", "Yaw"):
        i = SCHEMA.index(name)
        u[:, i] = torch.where(asked[:, i], _continuous(name, targets[:, i]), u[:, i])
    labels = faces_from_uniforms(u).labels
    return u, ((labels == targets) | ~asked)[:, :6].all(1)


def _continuous(name: str, target: Tensor) -> Tensor:
    """The uniform number of an age or a yaw in natural units."""
    unit: Tensor
    if name == "Yaw":
        unit = ndtr(target / YAW_DEVIATION)
        return unit
    return ((target - 18.0) / 62.0).clamp(EDGE, 1.0 - EDGE)


def sample_z(n: int, seed: int) -> Tensor:
    """N rows of N(0, I), (n, Z_DIM)."""
    return torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(seed))


def held_out(labels: Tensor) -> Tensor:
    """Rows (B,) bool that show one of the combinations left out of training."""
    columns = [[SCHEMA.index(name) for name in combination] for combination in HELD_OUT]
    return torch.stack([labels[:, c].bool().all(1) for c in columns]).any(0)

"""Faces of SynthFaces that show what any condition asks for, by rejection."""

import torch
from torch import Tensor

from lcg_lightning.conditions import And, Condition, Is, met, names, take, targets
from lcg_lightning.conditions.tree import unscaled
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.synthfaces.faces import FACTORS, SCHEMA, Z_DIM, attempt, faces_from_uniforms

MOST_DRAWS = 5000
"""Draws for each sample after which a condition counts as too rare."""
_AT_ONCE = 2048
"""Rows that are tried at a time."""


def attempt_faces(z: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """Like :func:`~lcg_lightning.synthfaces.faces.attempt`, for any condition: u (B, FACTORS), and (B,) bool.

    Raises:
        UserError: a continuous target under ~ or |.
    """
    u, _ = attempt(z, continuous_targets(condition, len(z)))
    return u, met(condition, faces_from_uniforms(u).labels, SCHEMA)


def continuous_targets(condition: Condition, batch: int) -> Tensor:
    """The targets (batch, 8) of the continuous attributes that a condition asks for, NaN elsewhere.

    Raises:
        UserError: a continuous target under ~ or |, or two values of one attribute.
    """
    stated: list[Condition] = []
    for term in unscaled(condition):
        hidden = [name for name in names(term) if SCHEMA[name].kind == "continuous"]
        if hidden and not isinstance(term, Is):
            raise UserError(f"condition: {hidden[0]} has a continuous target under ~ or |; that is no event")
        stated += [term] * len(hidden)
    return targets(And(tuple(stated)), SCHEMA, batch)


def draw_faces(condition: Condition, noise: SampleNoise) -> tuple[Tensor, Tensor, Tensor]:
    """A face drawn from the joint given a condition for each sample of the noise, whose draws belong to it alone.

    Args:
        condition: any tree; targets per sample are (B,).
        noise: noise of Z_DIM or more numbers.

    Returns:
        The first draws z (B, noise.dim) float64 that showed what is asked, with any continuous attribute;
        the :func:`~lcg_lightning.synthfaces.faces.uniforms` u (B, FACTORS) of the faces, with the ones asked for; and
        (B,) bool that is False where none of :data:`MOST_DRAWS` draws showed it.

    Raises:
        UserError: a continuous target under ~ or |.
    """
    left = torch.arange(len(noise.index), device=noise.device)
    z = torch.zeros(len(left), noise.dim, dtype=torch.float64, device=noise.device)
    u = torch.full((len(left), FACTORS), 0.5, dtype=torch.float64, device=noise.device)
    draw = 0
    while len(left) and draw < MOST_DRAWS:
        times = min(max(1, _AT_ONCE // len(left)), MOST_DRAWS - draw)
        own = SampleNoise(noise.seed, noise.index[left.cpu()], noise.dim, noise.device)
        tried = torch.cat([own(draw + k) for k in range(times)]).double()  # (times * L, dim)
        faces, shown = attempt_faces(tried[:, :Z_DIM], take(condition, left.repeat(times)))
        first = shown.view(times, -1).byte().argmax(0) * len(left) + torch.arange(len(left), device=noise.device)
        done = shown[first]
        z[left[done]], u[left[done]] = tried[first[done]], faces[first[done]]
        left, draw = left[~done], draw + times
    found = torch.ones(len(z), dtype=torch.bool, device=noise.device)
    found[left] = False
    return z, u, found

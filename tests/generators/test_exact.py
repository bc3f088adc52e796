"""The exact world is as exact as it says: its map, its density, its conditional samples, its counterfactuals."""

import math

import pytest
import torch

from lcg_lightning.conditions import conjunction, met, parse
from lcg_lightning.errors import UserError
from lcg_lightning.generators.exact import LATENT_DIM, ExactWorld
from lcg_lightning.recipes.zoo import factors
from lcg_lightning.synthfaces.faces import SCHEMA, Z_DIM, faces_from_z, sample_z
from lcg_lightning.synthfaces.renderer import render


def draw(n, seed=0):
    return torch.Generator().manual_seed(seed), torch.randn(
        n, LATENT_DIM, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("curvature", [0.0, 0.3, 1.0])
def test_the_map_and_its_inverse_agree(curvature):
    world = ExactWorld(curvature)
    _, z = draw(2000)
    w = world.to_latents(z)
    torch.testing.assert_close(world.to_z(w), z, rtol=0, atol=1e-5 if curvature < 1 else 1e-4)
    assert (w - z @ world.mixings[0].T.float()).abs().max() > 0.1  # no identity


@pytest.mark.parametrize("curvature", [0.0, 0.5, 1.0])
def test_density_is_that_of_a_numerical_jacobian(curvature):
    world = ExactWorld(curvature)
    _, z = draw(4, 1)
    z = z.double()
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda v: world.to_latents(v[None])[0], row) for row in z]
    )
    step = 1e-6  # the Jacobian itself against differences, so that autograd is not asked about itself alone
    bumped = world.to_latents(z + step * torch.eye(LATENT_DIM)[0].double())
    torch.testing.assert_close((bumped - world.to_latents(z)) / step, jacobians[:, :, 0], rtol=1e-3, atol=1e-4)
    gaussian = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    expected = gaussian - torch.linalg.slogdet(jacobians)[1]
    torch.testing.assert_close(world.log_prob(world.to_latents(z)), expected, rtol=0, atol=1e-6)


def test_curvature_zero_is_a_rotation_and_more_is_not():
    z = draw(500, 2)[1]
    assert torch.allclose(ExactWorld(0.0).to_latents(z).norm(dim=1), z.norm(dim=1), atol=1e-4)
    bend = [(ExactWorld(c).to_latents(z).mean(0).norm() / z.mean(0).norm()).item() for c in (0.0, 0.3, 1.0)]
    assert bend[0] < bend[1] < bend[2]


def test_decoding_draws_the_face_behind_the_latent_at_any_size():
    z = draw(6, 3)[1]
    for size in (64, 128):
        world = ExactWorld(0.4, size)
        images = world.decode(world.to_latents(z))
        assert images.shape == (6, 3, size, size)
        torch.testing.assert_close(images, render(faces_from_z(z[:, :Z_DIM].double()), size).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("text", ["Beard & Hat", "~(Smiling | Hat)", "Bald | Gray_Hair", "Eyeglasses & Age=70"])
def test_conditional_samples_follow_the_counts_of_plain_ones(text):
    """Every label among samples of p(w | condition), against plain samples that happen to satisfy it."""
    world, condition = ExactWorld(0.5), parse(text, SCHEMA)
    got = world.labels(world.sample_conditional(condition, 1000, torch.Generator().manual_seed(5)))
    plain = world.labels(world.sample_latents(60_000, torch.Generator().manual_seed(6)))
    keep = met(condition, plain, SCHEMA)
    if "Age" in text:
        assert (got[:, SCHEMA.index("Age")] - 70).abs().max() < 1e-3
        keep &= (plain[:, SCHEMA.index("Age")] - 70).abs() < 2
    assert met(condition, got, SCHEMA).all()
    want = plain[keep]
    assert len(want) > 500
    for i, name in enumerate(SCHEMA.names):
        spread = want[:, i].std() * math.sqrt(1 / len(want) + 1 / len(got)) + 1e-3
        assert (got[:, i].mean() - want[:, i].mean()).abs() < 4.5 * spread + (1.0 if name == "Age" else 0), name


def test_a_counterfactual_changes_what_is_asked_and_nothing_else():
    world = ExactWorld(0.7)
    w = world.sample_latents(2000, torch.Generator().manual_seed(7))
    before = world.faces(w)
    targets = torch.full((2000, len(SCHEMA)), torch.nan)
    targets[:, SCHEMA.index("Smiling")] = 1 - before.labels[:, SCHEMA.index("Smiling")]
    targets[:, SCHEMA.index("Beard")] = 1 - before.labels[:, SCHEMA.index("Beard")]
    targets[:, SCHEMA.index("Age")] = 98 - before.labels[:, SCHEMA.index("Age")]
    targets[:, SCHEMA.index("Yaw")] = -before.labels[:, SCHEMA.index("Yaw")]
    edited, possible = world.counterfactual(w, targets)
    after = world.faces(edited)
    assert 0.3 < possible.float().mean() < 0.7  # no beards beside long hair, no grey hair at twenty
    wanted = torch.where(targets.isnan(), before.labels, targets)
    torch.testing.assert_close(after.labels[possible], wanted[possible], rtol=0, atol=2e-3)
    assert (after.labels[~possible, :6] != wanted[~possible, :6]).any(1).all()
    torch.testing.assert_close(after.identity, before.identity, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.scene, before.scene, rtol=0, atol=1e-4)
    torch.testing.assert_close(world.to_z(edited)[:, Z_DIM:], world.to_z(w)[:, Z_DIM:], rtol=0, atol=1e-3)
    assert world.identity_distance(w, edited).max() < 1e-4
    strangers = world.identity_distance(w, w.roll(1, 0)).mean()
    assert strangers == pytest.approx(1 / 3, abs=0.02)


def test_encoding_goes_through_the_inverse_to_the_same_picture():
    """With an encoder that knows the factors, what is encoded decodes to what was seen."""
    faces = faces_from_z(sample_z(40, 11))

    class Knows(torch.nn.Module):
        def forward(self, images):
            assert images.shape[1:] == (3, 64, 64)
            return factors(faces)

    world = ExactWorld(0.5, 128, encoder=Knows())
    images = render(faces, 128)
    w = world.encode(images)
    found = world.faces(w)
    torch.testing.assert_close(found.labels, faces.labels, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.identity, faces.identity, rtol=0, atol=1e-4)
    torch.testing.assert_close(world.decode(w), images, rtol=0, atol=2e-2)
    assert world.can("encode")
    assert not ExactWorld(0.5).can("encode")
    assert world.fingerprint == ExactWorld(0.5).fingerprint != ExactWorld(0.6).fingerprint
    with pytest.raises(UserError, match="cannot encode"):
        ExactWorld(0.5).encode(images)


def test_what_the_world_refuses():
    for curvature in (-0.1, 1.5, math.nan):
        with pytest.raises(UserError, match=r"curvature is .*; give a number from 0 to 1"):
            ExactWorld(curvature)
    world, draws = ExactWorld(0.2), torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match=r"0 of 20,000 draws.*acceptance rate of 0;.*more than the 20,000 draws"):
        world.sample_conditional(parse("Gray_Hair & Age=20", SCHEMA), 10, draws, max_draws=20_000)
    with pytest.raises(UserError, match="no event"):
        world.sample_conditional(parse("2*Smiling & Hat", SCHEMA), 1, draws)
    with pytest.raises(UserError, match="target for each sample"):
        world.sample_conditional(conjunction(torch.zeros(2, len(SCHEMA)), SCHEMA), 2, draws)

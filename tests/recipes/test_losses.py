"""The generator's losses against other ways to compute them, and its schedule."""

import math

import pytest
import torch
import torch.nn.functional as F

from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.networks.stylegan2 import StyleGAN2, upsample
from lcg_lightning.recipes.generator import BINARY, GeneratorRecipe, draw_small, readout_loss, steady_then_decay
from lcg_lightning.recipes.losses import PatchDiscriminator, feature_distance, gradient_distance, laplacian_energy
from lcg_lightning.recipes.second_judges import disturb
from lcg_lightning.recipes.zoo import factors
from lcg_lightning.synthfaces.faces import SCHEMA, faces_from_z, sample_z
from lcg_lightning.synthfaces.renderer import render


def images(n=3, seed=0, size=16):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_laplacian_energy_is_that_of_a_convolution():
    x = images()
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
    expected = F.conv2d(x, kernel, groups=3).square().mean((1, 2, 3))
    torch.testing.assert_close(laplacian_energy(x), expected)
    assert laplacian_energy(torch.ones(1, 3, 8, 8)).item() == 0


def test_gradient_distance_sees_edges_and_not_brightness():
    x = images()
    assert gradient_distance(x + 0.3, x).item() == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 1, 4, 8)
    step[..., 4:] = 1.0  # one edge among 7 differences across, none down
    assert gradient_distance(step, torch.zeros_like(step)).item() == pytest.approx(1 / 7)


def test_feature_distance_is_that_of_unit_vectors_and_of_outputs():
    torch.manual_seed(0)
    network = ConvNet(5, 16, (4, 8), size=16).eval().requires_grad_(False)
    x, y = images(2, 3), images(2, 4)
    assert feature_distance(network, x, x).item() == 0
    angles = 0.0
    for a, b in zip(network.maps(x), network.maps(y), strict=True):
        angles += (2 - 2 * F.cosine_similarity(a, b, dim=1)).mean()  # |a - b|^2 of unit vectors
    expected = angles + 10 * (network(x) - network(y)).square().mean()
    torch.testing.assert_close(feature_distance(network, x, y), expected)
    x.requires_grad_(), y.requires_grad_()
    feature_distance(network, x, y).backward()
    assert x.grad.abs().sum() > 0
    assert y.grad is None


def test_discriminator_learns_to_tell_and_its_penalty_is_a_gradient_norm():
    torch.manual_seed(0)
    critic = PatchDiscriminator(widths=(8, 8))
    real, fake = images(16, 1), 0.2 * images(16, 2)
    before = critic.loss(real, fake).item()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        critic.loss(real, fake).backward()
        optimizer.step()
    assert critic.loss(real, fake).item() < 0.5 * before
    one = real[:1].double().requires_grad_()
    critic.double()
    (gradient,) = torch.autograd.grad(critic(one).sum(), one)
    assert critic.r1(real[:1].double()).item() == pytest.approx(gradient.square().sum().item())


def test_rate_rises_stays_and_falls_to_zero():
    rates = [steady_then_decay(step, 1000, 0.2) for step in range(1001)]
    assert rates[0] == pytest.approx(1 / 200)
    assert rates[199:801] == [1.0] * 602
    assert rates[900] == pytest.approx(0.5)
    assert rates[1000] == 0
    assert rates[800:] == sorted(rates[800:], reverse=True)


def test_readout_loss_treats_binary_factors_as_probabilities():
    truth = factors(faces_from_z(sample_z(50, 0)))
    binary = truth[:, BINARY]
    assert ((binary == 0) | (binary == 1)).all()
    assert binary.shape[1] == sum(a.kind == "binary" for a in SCHEMA)
    outputs = truth.clone()
    outputs[:, BINARY] = 0
    assert readout_loss(outputs, truth).item() == pytest.approx(math.log(2))
    outputs[:, 0] += 0.5
    assert readout_loss(outputs, truth).item() > math.log(2)


def test_growing_draws_what_the_last_block_adds_to():
    """The small picture, up-sampled, plus the last block's own contribution is the large one."""
    torch.manual_seed(0)
    network = StyleGAN2(8, 0, 16, 32, channel_base=256, channel_max=16, mapping_layers=2).double()
    w = torch.randn(2, 16).double()
    contributions = []
    hook = network.synthesis.b32.torgb.register_forward_hook(lambda _, __, out: contributions.append(out))
    whole = network.draw(w)
    hook.remove()
    small = draw_small(network, w)
    assert small.shape == (2, 3, 16, 16)
    torch.testing.assert_close(upsample(small, network.synthesis.b32.resample_filter) + contributions[0], whole)


def test_the_average_follows_the_weights():
    recipe = GeneratorRecipe(averaging=100)
    own = recipe.generator_network.mapping.fc0.weight
    average = recipe.average["generator_network"].mapping.fc0.weight
    start = own.detach().clone()
    with torch.no_grad():
        own.add_(1.0)
    recipe._update_average(10_000)
    torch.testing.assert_close(average, start + 0.01)


def test_disturbed_images_move_by_two_pixels_at_most_and_differ():
    x = render(faces_from_z(sample_z(32, 1)))
    out = disturb(x, torch.Generator().manual_seed(0))
    assert out.shape == x.shape
    assert (out - x).abs().mean((1, 2, 3)).min() > 0.01
    again = disturb(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(out, again, rtol=0, atol=0)
    dot = torch.full((64, 3, 32, 32), -1.0)
    dot[:, :, 16, 16] = 1.0
    bright = disturb(dot, torch.Generator().manual_seed(1)).mean(1).flatten(1)
    row, column = bright.argmax(1) // 32, bright.argmax(1) % 32
    seen = bright.amax(1) - bright.median(1).values > 0.2  # not covered by the patch
    assert seen.float().mean() > 0.7
    assert (row[seen] - 16).abs().max() <= 2
    assert (column[seen] - 16).abs().max() <= 2
    assert row[seen].unique().numel() > 2

import math

import pytest
import torch

from lcg_lightning.networks.latent import LatentClassifierNet, LatentMLP


@pytest.fixture
def z_t():
    g = torch.Generator().manual_seed(0)
    return torch.randn(7, 12, generator=g, dtype=torch.float64), torch.rand(7, generator=g).double() * 1000


def test_latent_mlp_is_what_the_paper_draws(z_t):
    z, t = z_t
    torch.manual_seed(1)
    net = LatentMLP(12, hidden=20, layers=3, time_hidden=16).double()
    expected = []
    for x, time in zip(z, t, strict=True):
        frequencies = [10_000 ** (-i / 32) for i in range(32)]
        emb = [math.cos(time * f) for f in frequencies] + [math.sin(time * f) for f in frequencies]
        emb = net.time_embed(torch.tensor(emb, dtype=torch.float64))
        scale = (net.time_scale.weight @ emb + net.time_scale.bias).split(20)
        h = x
        for i in range(2):
            h = net.linears[i].weight @ (h if i == 0 else torch.cat([h, x])) + net.linears[i].bias
            h = h * (1 + scale[i])
            h = (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()  # LayerNorm at its initial affine
            h = h * torch.sigmoid(h)
        expected.append(net.output.weight @ torch.cat([h, x]) + net.output.bias)
    torch.testing.assert_close(net(z, t), torch.stack(expected), rtol=1e-10, atol=1e-10)
    kept = z.clone()
    with torch.no_grad():  # activations are overwritten, the input is not
        torch.testing.assert_close(net(z, t), torch.stack(expected), rtol=1e-10, atol=1e-10)
    assert torch.equal(z, kept)


@pytest.mark.parametrize("net", [LatentMLP(12, 20, 4), LatentClassifierNet(12, 5, hidden=20, layers=3, buckets=4)])
def test_a_shared_time_gives_what_per_sample_times_give(net, z_t):
    z, t = z_t
    net.double()
    if isinstance(net, LatentClassifierNet):
        net.gain.copy_(torch.rand(4, 5) + 0.5)
        net.shift.copy_(torch.rand(4, 5))
    table = net.time_table(t)
    for i, time in enumerate(t):
        shared = net(z, torch.full((7,), time.item(), dtype=torch.float64))
        torch.testing.assert_close(net.forward_at(z, table[i]), shared, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(net(z, t)[i], shared[i], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(net(z, t), net(z, t + 100))
    torch.testing.assert_close(net(z, t.long()), net(z, t.long().double()), rtol=1e-4, atol=1e-4)


def test_calibration_is_per_noise_level():
    net = LatentClassifierNet(3, 2, num_steps=100, hidden=8, layers=2, buckets=4)
    z, t = torch.randn(5, 3), torch.tensor([0, 24.9, 25, 99, 99.9])
    raw = net(z, t)
    torch.testing.assert_close(raw, net.trunk(z, t))
    net.gain[1], net.shift[1] = 3.0, 1.0
    changed = net(z, t)
    torch.testing.assert_close(changed[2], raw[2] * 3 + 1)
    assert torch.equal(changed[[0, 1, 3, 4]], raw[[0, 1, 3, 4]])

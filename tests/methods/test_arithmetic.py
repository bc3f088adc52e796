"""Latent arithmetic: its linear models against scikit-free optima, and that guidance reduces to it."""

import torch

from lcg_lightning.attributes import Attribute
from lcg_lightning.methods.arithmetic import fit_linear, shift


def test_logistic_fit_is_stationary():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 6, generator=generator)
    labels = (z @ torch.arange(6.0) + torch.randn(500, generator=generator) > 1).float()
    w, b = (v.double().requires_grad_() for v in fit_linear(z, labels, l2=0.01))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z.double() @ w + b, labels.double())
    (loss + 0.005 * w.square().sum()).backward()
    assert w.grad.abs().max() < 1e-6
    assert b.grad.abs() < 1e-6


def test_least_squares_recovers_a_linear_truth():
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
    truth = torch.tensor([1.0, -2, 0.5, 0, 3])
    w, b = fit_linear(z, z @ truth + 0.7, l2=0.0)
    torch.testing.assert_close(w, truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(b, torch.tensor(0.7), rtol=1e-5, atol=1e-5)


def test_shift_is_a_step_along_the_normal_or_to_the_target():
    z, w, b = torch.zeros(3, 2), torch.tensor([3.0, 4.0]), torch.tensor(0.1)
    moved = shift(z, torch.tensor([1.0, 0.0, torch.nan]), Attribute("Hat"), w, b, scale=2.0)
    torch.testing.assert_close(moved, torch.tensor([[1.2, 1.6], [-1.2, -1.6], [0.0, 0.0]]))
    age = Attribute("age", "continuous", low=20, high=60)
    moved = shift(z, torch.tensor([40.0, 20.0, torch.nan]), age, w, b, scale=9.0)
    torch.testing.assert_close(moved @ w + b, torch.tensor([0.5, 0.0, 0.1]))

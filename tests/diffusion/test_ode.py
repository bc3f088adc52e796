"""The solver against matrix exponentials and against torchdiffeq, and a sample's independence of its batch."""

import math

import pytest
import torch
from torchdiffeq import odeint

from lcg_lightning.diffusion import ode
from lcg_lightning.diffusion.ode import dopri5
from lcg_lightning.errors import UserError

A = torch.tensor([[0.0, 2.0, 0.3], [-2.0, -0.1, 0.0], [0.5, 0.0, -3.0]], dtype=torch.float64)
Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def swinging(t, y):
    """Nonlinear, not autonomous, and fast only where y is small."""
    return 2 * torch.cos(3 * y.flip(1)) - t[:, None] * y


@pytest.mark.parametrize("end", [1.5, -1.0])
def test_a_linear_equation_is_a_matrix_exponential(end):
    exact = Y @ torch.linalg.matrix_exp(A * (end - 0.25)).T
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-8):
        found, evaluations = dopri5(lambda t, y: y @ A.T, Y, 0.25, end, tolerance)
        errors.append((found - exact).abs().max() / exact.abs().max())
        assert errors[-1] < 10 * tolerance
    assert (evaluations > 60).all()
    still, evaluations = dopri5(lambda t, y: torch.zeros_like(y), Y, 0.0, 1.0, 1e-3)
    assert torch.equal(still, Y)
    assert (evaluations <= 50).all()


def test_alone_a_sample_takes_the_steps_of_torchdiffeq():
    span = torch.tensor([0.0, 3.0], dtype=torch.float64)
    for y in Y[:5]:
        found, evaluations = dopri5(swinging, y[None], 0.0, 3.0, 1e-4)
        calls = []

        def field(t, y, calls=calls):
            calls.append(t)
            return swinging(t.expand(1), y)

        library = odeint(field, y[None], span, method="dopri5", rtol=1e-4, atol=1e-4)[-1]
        assert abs(evaluations.item() - len(calls)) <= 0.1 * len(calls)
        exact = odeint(field, y[None], span, method="dopri8", rtol=1e-11, atol=1e-11)[-1]
        assert (found - exact).abs().max() < max(2e-4, 2 * (library - exact).abs().max())


def test_a_sample_does_not_depend_on_its_batch():
    fast = torch.where(torch.arange(40) % 4 == 0, 4.0, 0.5).double()[:, None] * Y
    whole, evaluations = dopri5(swinging, fast, 0.0, 2.0, 1e-3)
    parts = [dopri5(swinging, part, 0.0, 2.0, 1e-3) for part in fast.split(7)]
    torch.testing.assert_close(whole, torch.cat([part[0] for part in parts]), rtol=0, atol=1e-12)
    assert torch.equal(evaluations, torch.cat([part[1] for part in parts]))
    assert evaluations.unique().numel() > 2


def test_a_row_that_breaks_is_nan_and_the_others_are_not():
    broken = Y.clone()
    broken[3] = math.inf
    found, _ = dopri5(swinging, broken, 0.0, 1.0, 1e-3)
    assert found[3].isnan().all()
    rest = torch.arange(40) != 3
    torch.testing.assert_close(found[rest], dopri5(swinging, Y[rest], 0.0, 1.0, 1e-3)[0])


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(ode, "MOST_STEPS", 5)
    with pytest.raises(UserError, match="40 of 40 samples need more than 5 steps"):
        dopri5(lambda t, y: 300 * y @ A.T, Y, 0.0, 1.0, 1e-3)

"""The stabilized solver against closed forms and torchdiffeq, its evaluations, and a sample's independence."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid
from torchdiffeq import odeint

from lcg_lightning.diffusion import chebyshev
from lcg_lightning.diffusion.chebyshev import MOST_STAGES, rkc2
from lcg_lightning.errors import UserError

Y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TURN = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
STIFF = TURN @ torch.tensor([1000.0, 30.0, 0.5, 0.0], dtype=torch.float64).diag() @ TURN.T


def down(rows, y):
    """Down a quadratic bowl, along whose steepest direction Euler's method is unstable beyond steps of 0.002."""
    return -y @ STIFF


def up(rows, y):
    """Up log sigmoid(20 y_0) + log sigmoid(5 y_1 - y_2) - 50 (y_3 - tanh y_0)^2."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        energy = logsigmoid(20 * y[:, 0]) + logsigmoid(5 * y[:, 1] - y[:, 2]) - 50 * (y[:, 3] - y[:, 0].tanh()).square()
        return torch.autograd.grad(energy.sum(), y)[0]


def library(field, y, time, tolerance):
    """The end points of torchdiffeq's dopri5, and its number of evaluations."""
    calls = []
    span = torch.tensor([0.0, time], dtype=torch.float64)
    end = odeint(
        lambda t, y: calls.append(t) or field(None, y), y, span, method="dopri5", rtol=tolerance, atol=tolerance
    )
    return end[-1], len(calls)


def step(stages, x):
    """One step of y' = x y from 1."""
    before, now = torch.ones_like(x), 1 + chebyshev._table()[stages, 1, 2] * x
    for mu, nu, new, old in chebyshev._table()[stages, 2 : stages + 1]:
        before, now = now, 1 - mu - nu + mu * now + nu * before + x * (new * now + old)
    return now


def test_every_number_of_stages_is_of_order_two_and_stable():
    for stages in range(2, MOST_STAGES + 1):
        x = torch.tensor([-0.1, -0.05], dtype=torch.float64)
        large, small = (step(stages, x) - x.exp()).abs()
        assert 7 < large / small < 9  # the error of a step is of order 3
        assert step(stages, torch.linspace(-0.65 * (stages**2 - 1), -1e-3, 5000, dtype=torch.float64)).abs().max() < 1


def test_a_stiff_linear_flow_is_a_matrix_exponential_at_a_fraction_of_the_evaluations():
    exact = Y @ torch.linalg.matrix_exp(-5 * STIFF)
    errors = []
    for tolerance in (1e-2, 1e-3, 1e-4):
        found, evaluations = rkc2(down, Y, 5.0, tolerance)
        errors.append((found - exact).abs().max())
        assert errors[-1] < 5 * tolerance
    assert errors[-1] < errors[0] / 5
    found, evaluations = rkc2(down, Y, 5.0, 1e-2)
    assert evaluations.max() < library(down, Y, 5.0, 1e-2)[1] / 5
    still, evaluations = rkc2(lambda rows, y: 0 * y, Y, 5.0, 1e-3)
    assert torch.equal(still, Y)
    assert (evaluations == 5).all()


def test_end_points_and_evaluations_beside_those_of_torchdiffeq():
    exact, _ = library(up, Y, 5.0, 1e-9)
    found, evaluations = rkc2(up, Y, 5.0, 1e-2)
    assert (found - exact).square().mean().sqrt() < 1e-2
    assert evaluations.max() < library(up, Y, 5.0, 1e-2)[1] / 2
    closer, _ = rkc2(up, Y, 5.0, 1e-5)
    assert (closer - exact).abs().max() < 2e-4


def test_a_slope_that_ends_is_not_overrun_by_far():
    """At a speed of 1 as far as 1, where the flow stops; the Jacobian at the start is 0."""
    start = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)[:, None]
    found, _ = rkc2(lambda rows, y: (y < 1).to(y), start, 5.0, 1e-2)
    torch.testing.assert_close(found, torch.ones_like(start), rtol=0, atol=0.4)


def test_a_solution_slides_along_a_jump():
    """Up -60 |n y| - 2 |y|^2 + d y, with n of length 1 and |d n| < 60: to the plane n y = 0, and on along it.

    The part of y along the plane is that of the flow up -2 |y|^2 + d y, before the plane is reached and after.
    """
    n = torch.tensor([0.5, -0.5, 0.5, 0.5], dtype=torch.float64)
    drift = 3 * Y.flip(0)
    free = math.exp(-12) * Y + (1 - math.exp(-12)) * drift / 4
    exact = free - (free @ n)[:, None] * n

    def field(rows, y):
        return drift[rows] - 60 * (y @ n).sign()[:, None] * n - 4 * y

    for tolerance in (0.1, 0.05):
        found, evaluations = rkc2(field, Y, 3.0, tolerance)
        finest = chebyshev.FINEST * tolerance * 3.0
        across = (found - exact) @ n
        assert across.abs().max() < 120 * finest  # the field jumps by 120
        assert (found - exact - across[:, None] * n).abs().max() < 1e-5
        assert evaluations.max() < 10 * 3.0 / finest


def test_samples_that_finish_early_or_need_few_stages_cost_no_more():
    """Bowls from flat to steep: every sample is that of a batch of its own, and is evaluated as often as it counts."""
    steep = torch.logspace(-2, 5, 30, dtype=torch.float64)[
        torch.randperm(30, generator=torch.Generator().manual_seed(2))
    ]
    centre, held = Y.roll(1, 0), []

    def field(rows, y):
        held.extend(rows.tolist())
        return steep[rows, None] * (centre[rows] - y) * torch.tensor([1.0, 0.1, 0.5, 0.0])

    found, evaluations = rkc2(field, Y, 5.0, 1e-2)
    assert evaluations.tolist() == torch.tensor(held).bincount().tolist()
    assert evaluations.max() > 10 * evaluations.min()
    for i in range(30):
        alone, needed = rkc2(lambda rows, y, i=i: field(rows + i, y), Y[i : i + 1], 5.0, 1e-2)
        torch.testing.assert_close(alone[0], found[i], rtol=0, atol=1e-12)
        assert needed == evaluations[i]


def test_a_row_that_breaks_is_nan_and_the_others_are_not():
    broken = Y.clone()
    broken[3] = math.inf
    found, _ = rkc2(up, broken, 1.0, 1e-2)
    assert found[3].isnan().all()
    rest = torch.arange(30) != 3
    torch.testing.assert_close(found[rest], rkc2(up, Y[rest], 1.0, 1e-2)[0])


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(chebyshev, "MOST_STEPS", 2)
    with pytest.raises(UserError, match="30 of 30 samples need more than 2 steps"):
        rkc2(down, Y, 5.0, 1e-3)

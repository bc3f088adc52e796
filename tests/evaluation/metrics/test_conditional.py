"""The distance to the true conditional: against SciPy, against what is known of samples, and blind to nothing."""

import numpy as np
import pytest
import scipy.stats
import torch

from lcg_lightning.conditions import Is, conjunction, parse
from lcg_lightning.conditions.tree import And
from lcg_lightning.evaluation.metrics.conditional import alike, classifier_inputs, condition_codes, energy_distances
from lcg_lightning.synthfaces.faces import SCHEMA

NAN = float("nan")


def draw(n, d=1, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pooled_energy_is_scipys_without_the_bias_of_its_pairs():
    """SciPy's is the square root, over all pairs: with n of them, a share 1 / n of a sample's pairs are with itself."""
    n = 60
    x, y, index = draw(n), 0.7 * draw(n, seed=1) + 0.5, torch.arange(n)
    found = energy_distances(index, torch.zeros(n, 1).double(), x, [y])
    v = scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    same = (2 * (x - y).abs().sum() / n**2).item()  # pairs (i, i) of the cross term
    u = (v - same) * n / (n - 1)
    assert found["energy/pooled"].value == pytest.approx(u, rel=1e-9)
    assert found["energy"] == found["energy/pooled"]  # there is one condition


def test_energy_of_two_gaussians_is_the_closed_form():
    """2 E|x - y| - E|x - x'| - E|y - y'| for N(0, 1) and N(1, 1), each the mean of a folded normal; several draws."""
    n, m = 3000, 1.0
    x, exact = draw(n) + m, [draw(n, seed=s) for s in (1, 2)]
    folded = 2 / np.sqrt(np.pi) * np.exp(-(m**2) / 4) + m * (1 - 2 * scipy.stats.norm.cdf(-m / np.sqrt(2)))
    expected = 2 * folded - 2 * 2 / np.sqrt(np.pi)
    found = energy_distances(torch.arange(n), torch.zeros(n, 1).double(), x, exact)["energy"]
    assert found.low < expected < found.high
    assert found.high - found.low < 0.2 * expected


def test_energy_within_conditions_sees_answers_that_ignore_the_question():
    """Exact samples of two conditions are N(-1, 1) and N(1, 1); asking either, a method draws from their mixture."""
    n = 400
    codes, index = (torch.arange(n) % 2).double()[:, None], torch.randperm(n)
    means = torch.tensor([-1.0, 1.0]).double()[:, None]
    at = codes[:, 0].long()
    exact = [draw(n, seed=1) + means[at]]
    deaf = draw(n, seed=2) + means[at[torch.randperm(n, generator=torch.Generator().manual_seed(0))]]
    good = draw(n, seed=3) + means[at]
    found = {name: energy_distances(index, codes, x, exact) for name, x in {"deaf": deaf, "good": good}.items()}
    assert found["deaf"]["energy"].low > 0.2
    assert found["deaf"]["energy/pooled"].low < 0 < found["deaf"]["energy/pooled"].high
    assert all(e.low < 0 < e.high for e in found["good"].values())
    parts = [energy_distances(index[c::2], codes[c::2], deaf[c::2], [exact[0][c::2]])["energy"].value for c in (0, 1)]
    assert found["deaf"]["energy"].value == pytest.approx(np.mean(parts))


def test_conditions_are_alike_where_they_ask_the_same():
    hat, age = SCHEMA.index("Hat"), SCHEMA.index("Age")
    rows = torch.full((6, len(SCHEMA)), NAN)
    rows[:, hat] = torch.tensor([1.0, 1.0, 0.0, NAN, 1.0, 1.0])
    rows[:, age] = torch.tensor([30.0, 33.1, 30.0, 30.0, NAN, 70.0])  # the range is 62, its fifth 12.4
    codes = condition_codes(conjunction(rows, SCHEMA), SCHEMA, 6)
    expected = torch.eye(6).double()
    expected[0, 1] = expected[1, 0] = 1 - 3.1 / 12.4
    torch.testing.assert_close(alike(codes, codes), expected, rtol=0, atol=1e-6)
    texts = ("Hat | Bald", "Hat & Bald", "Hat | Bald")
    trees = torch.cat([condition_codes(parse(text, SCHEMA), SCHEMA, 1) for text in texts])
    assert alike(trees, trees).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    mixed = condition_codes(And((Is("Hat"), Is("Age", torch.tensor([20.0, 80.0])))), SCHEMA, 2)
    assert alike(mixed, mixed).tolist() == [[1, 0], [0, 1]]
    assert classifier_inputs(codes.numpy()).shape == (6, 4)  # whether either is asked, and the targets

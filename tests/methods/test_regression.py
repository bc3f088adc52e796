"""Regression directions in a linear Gaussian world whose matrix is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import Is, Not, Or, merge, parse
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.methods import regression
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.regression import (
    RegressionDirections,
    expected_labels,
    regression_directions,
    regression_move,
    regression_moves,
)

SCHEMA = AttributeSchema((Attribute("Hat"), Attribute("Age", "continuous", low=0, high=100)))
D = 6


def world(n, noise=0.1):
    """Labels with a correlation of .6, and latents that are linear in them: z = M (hat, age) + noise."""
    g = torch.Generator().manual_seed(0)
    hat = (torch.rand(n, generator=g) < 0.5).double()
    age = 0.5 * hat + 0.5 * torch.rand(n, generator=g, dtype=torch.float64)
    units = torch.stack([hat, age], 1)
    matrix = torch.randn(2, D, generator=g, dtype=torch.float64)
    return units @ matrix + 0.3 + noise * torch.randn(n, D, generator=g, dtype=torch.float64), units, matrix


class Reader(torch.nn.Module):
    """Reads labels off latents of :func:`world` by its known matrix; it is sure of Hat."""

    def __init__(self, matrix, mean, std):
        super().__init__()
        self.matrix, self.mean, self.std = matrix, mean, std

    schema = SCHEMA

    def forward(self, z, t):
        units = (z.double() * self.std + self.mean - 0.3) @ torch.linalg.pinv(self.matrix)
        logit = 20 * (units[:, :1] - 0.5)
        return torch.cat([logit, units[:, 1:], torch.zeros_like(logit)], 1).to(z)

    def read(self, z):
        return SCHEMA.predict(self(z, torch.zeros(len(z))))


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    w, units, matrix = world(2000, noise=0.01)
    rows = Split(w.float(), SCHEMA.natural(units).float(), [str(i) for i in range(len(w))])
    store = LatentStore.open(write_store(tmp_path / "store", {"train": rows}, SCHEMA, "f" * 16, {}))
    reader = Reader(matrix, store.mean, store.std)
    monkeypatch.setattr(regression, "load_classifier", lambda path, store: reader)
    method = RegressionDirections(Path("c"))
    method.prepare(store, LatentSpace(None, store.mean, store.std))
    return method, store, units, reader


def test_directions_are_the_columns_of_the_known_matrix():
    z, units, matrix = world(4000)
    units[::3, 1] = math.nan  # such rows are left out
    units = torch.cat([units, torch.full_like(units[:, :1], math.nan)], 1)
    found = regression_directions(z, units)
    torch.testing.assert_close(found[:2], matrix, rtol=0, atol=0.05)
    assert found[2].isnan().all()
    wanted = torch.tensor([[1.0, math.nan, math.nan], [math.nan, 0.7, math.nan]]).double()
    moved = regression_move(z[:2], torch.full((2, 3), 0.2).double(), wanted, found) - z[:2]
    torch.testing.assert_close(moved, torch.stack([0.8 * found[0], 0.5 * found[1]]))


@pytest.mark.parametrize("rows", [1, 7, 60, 1000])
def test_chunks_of_any_size_give_what_least_squares_gives(monkeypatch, rows):
    """Labels nearly determine one another, one is unknown in a long stretch, and the latents are far from zero."""
    monkeypatch.setattr(regression, "CHUNK", rows * D)
    z, units, _ = world(500)
    units = torch.cat([units, units[:, 1:] + 1e-5 * units[:, :1] * units[:, 1:], torch.full((500, 1), 0.5)], 1)
    units[100:300, 0] = math.nan
    z += 1e4
    known = ~units.isnan().any(1)
    design = np.column_stack([units[known][:, :3].numpy(), np.ones(int(known.sum()))])
    expected, _, _, singular = np.linalg.lstsq(design, z[known].numpy(), rcond=None)
    assert singular[0] / singular[-1] > 1e5
    found = regression_directions(z, units)
    torch.testing.assert_close(found[:3], torch.from_numpy(expected[:3]), rtol=0, atol=1e-8 * np.abs(expected).max())
    assert found[3].isnan().all()


def test_labels_that_determine_one_another_are_refused():
    z, units, _ = world(100)
    for labels in (units[:, [0, 0]], units[:2]):
        with pytest.raises(UserError, match=r"^regression directions: [^\n]+$"):
            regression_directions(z[: len(labels)], labels)


def test_a_label_that_never_varies_has_no_direction_and_takes_none_from_the_others():
    z, units, _ = world(100)
    for constant in (torch.ones(100, 1), torch.full((100, 1), math.nan)):
        found = regression_directions(z, torch.cat([constant, units], 1))
        assert found[0].isnan().all()
        torch.testing.assert_close(found[1:], regression_directions(z, units))


def test_an_edit_changes_what_is_asked_and_nothing_else(prepared):
    method, store, units, reader = prepared
    z = ((world(2000, 0.01)[0] - store.mean) / store.std)[:50].float()
    conditions = [parse(text, SCHEMA) for text in ("Age=80", "Hat", "Age=20 & ~Hat")]
    results = method.edit(z, [Edit(c, merge(conditions[: k + 1])) for k, c in enumerate(conditions)])
    truth = SCHEMA.natural(units[:50]).float()
    for moved, (hat, age) in zip(results, ((truth[:, 0], 80.0), (1.0, 80.0), (0.0, 20.0)), strict=True):
        expected = torch.stack([torch.as_tensor(hat).expand(50), torch.tensor(age).expand(50)], 1)
        torch.testing.assert_close(reader.read(moved), expected, rtol=0, atol=3.0)
    off = (results[0] - z) * store.std
    torch.testing.assert_close(off, (0.8 - units[:50, 1:]) * reader.matrix[1], rtol=0, atol=0.05)


def test_going_back_undoes_an_edit_and_half_a_scale_goes_half_the_way(prepared):
    method, *_ = prepared
    z = torch.randn(20, D)
    forth, back = parse("Age=90", SCHEMA), parse("Age=10", SCHEMA)
    [once] = method.edit(z, [Edit(back, back)])
    torch.testing.assert_close(method.edit(z, [Edit(forth, forth), Edit(back, back)])[1], once, rtol=0, atol=0.02)
    method.scale = 0.5
    torch.testing.assert_close(method.edit(z, [Edit(back, back)])[0] - z, (once - z) / 2)


def test_a_binary_reading_is_the_probability(prepared):
    method, *_ = prepared
    outputs = torch.tensor([[0.0, 0.3, 0.0], [3.0, 0.8, 0.0]])
    method.classifier.forward = lambda z, t: outputs
    found = expected_labels(method.classifier, torch.zeros(2, D))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.3], [1 / (1 + math.exp(-3)), 0.8]]))


def test_what_it_cannot_do_is_one_line(prepared):
    method, *_ = prepared
    with pytest.raises(UserError, match="leaves a choice"):
        method.edit(torch.zeros(1, D), [Edit(None, Or((Is("Hat"), Not(Is("Hat")))))])
    with pytest.raises(UserError, match="set prior to its checkpoint"):
        method.generate(parse("Hat", SCHEMA), SampleNoise(0, torch.arange(2), D))
    with pytest.raises(UserError, match="scale is nan"):
        RegressionDirections(Path("c"), scale=math.nan)
    method.directions[0] = math.nan
    with pytest.raises(UserError, match="no direction for Hat"):
        method.edit(torch.zeros(1, D), [Edit(None, parse("Hat", SCHEMA))])


def test_three_moves_arrive_in_a_curved_world_where_one_does_not():
    """Age is read as u + sin(3 u) / 6, so directions that are right at slope 1 miss, and re-reading corrects them."""

    class Curved(Reader):
        def forward(self, z, t):
            outputs = super().forward(z, t)
            return torch.cat([outputs[:, :1], outputs[:, 1:2] + torch.sin(3 * outputs[:, 1:2]) / 6, outputs[:, 2:]], 1)

    w, _, matrix = world(50, noise=0.0)
    reader = Curved(matrix, 0.0, 1.0)
    wanted = torch.stack([expected_labels(reader, w)[:, 0], torch.full((50,), 0.7)], 1)
    errors = [
        (expected_labels(reader, regression_moves(w, wanted, reader, matrix, moves)) - wanted).abs().amax(0)
        for moves in (1, 3)
    ]
    assert errors[0][1] > 0.03
    assert errors[1][1] < errors[0][1] / 10
    assert errors[1][0] < 1e-6

"""Latent arithmetic: its linear models against scikit-free optima, and that guidance reduces to it."""

import math

import numpy as np
import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import parse
from lcg_lightning.data.space import LatentSpace, standardize, unstandardize
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.errors import UserError
from lcg_lightning.kept import loaded_once
from lcg_lightning.methods.arithmetic import LatentArithmetic
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.linear import Line, conditional_steps, fit_linear, shift
from tests.conftest import SHARED, needs
from tests.generators.published import diffae_checkpoint

BOUNDARIES = SHARED / "data/interfacegan"


def test_fits_are_stationary():
    """The gradient of the mean loss, written out here, is 0 at what scikit-learn returns."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 6, generator=generator, dtype=torch.float64)
    signed = 2.0 * (z @ torch.arange(6.0).double() + torch.randn(500, generator=generator) > 1) - 1
    for fit, loss, tolerance in (
        ("logistic", lambda m: torch.nn.functional.softplus(-m), 1e-6),
        ("svm", lambda m: (1 - m).relu().square(), 1e-4),
    ):
        w, b = (v.requires_grad_() for v in fit_linear(z, (signed + 1) / 2, fit, l2=0.01))
        (loss(signed * (z @ w + b)).mean() + 0.005 * w.square().sum()).backward()
        assert w.grad.abs().max() < tolerance
        assert b.grad.abs() < tolerance


def test_conditional_steps_are_the_papers_projections():
    normals = torch.nn.functional.normalize(torch.randn(3, 7, generator=torch.Generator().manual_seed(2)), dim=1)
    a, b = normals[:2]  # for one condition, the paper gives n1 - (n1 . n2) n2
    expected = torch.nn.functional.normalize(a - (a @ b) * b, dim=0)
    torch.testing.assert_close(conditional_steps(normals[:2])[0], expected)
    products = conditional_steps(normals) @ normals.T
    torch.testing.assert_close(products, products.diagonal().diag())
    assert (products.diagonal() > 0).all()
    with pytest.raises(UserError, match="depend on one another"):
        conditional_steps(torch.cat([normals, normals[:1] + normals[1:2]]))


def test_least_squares_recovers_a_linear_truth():
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
    truth = torch.tensor([1.0, -2, 0.5, 0, 3])
    w, b = fit_linear(z, z @ truth + 0.7, l2=0.0)
    torch.testing.assert_close(w, truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(b, torch.tensor(0.7), rtol=1e-5, atol=1e-5)


def test_shift_is_a_step_along_the_normal_or_to_the_target():
    z, w, b = torch.zeros(3, 2), torch.tensor([3.0, 4.0]), torch.tensor(0.1)
    line = Line(w / w.norm(), w, b)
    moved = shift(z, torch.tensor([1.0, 0.0, torch.nan]), Attribute("Hat"), line, scale=2.0)
    torch.testing.assert_close(moved, torch.tensor([[1.2, 1.6], [-1.2, -1.6], [0.0, 0.0]]))
    age = Attribute("age", "continuous", low=20, high=60)
    moved = shift(z, torch.tensor([40.0, 20.0, torch.nan]), age, line, scale=9.0)
    torch.testing.assert_close(moved @ w + b, torch.tensor([0.5, 0.0, 0.1]))


def store_of(tmp_path, attributes, shape=(8,), statistics=None):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(300, *shape, generator=generator) * 3 + 1
    labels = torch.stack([(latents.flatten(1)[:, i] > 1).float() for i in range(len(attributes))], 1)
    labels = torch.where(torch.tensor([a.kind == "continuous" for a in attributes]), 40 + 10 * labels, labels)
    split = Split(latents, labels, [str(i) for i in range(300)])
    path = write_store(tmp_path / "store", {"train": split}, AttributeSchema(attributes), "f" * 16, {}, statistics)
    return LatentStore.open(path)


def space_of(store):
    return LatentSpace(None, store.mean, store.std)


def test_conditional_edits_leave_the_other_linear_models_unchanged(tmp_path):
    names = ("Smiling", "Hat")
    z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.stack([z[:, 0] > 0, z[:, 0] + z[:, 1] > 0, 30 + 9 * z[:, 0] + 9 * z[:, 2]], 1).float()
    attributes = (*map(Attribute, names), Attribute("Age", "continuous", low=0, high=60))
    split = Split(z, labels.clamp(0, 60), [str(i) for i in range(400)])
    store = LatentStore.open(
        write_store(tmp_path / "store", {"train": split}, AttributeSchema(attributes), "f" * 16, {})
    )
    source = z[:5]
    moved = {}
    for conditional in (False, True):
        method = LatentArithmetic(conditional=conditional, fit="svm")
        method.prepare(store, space_of(store))
        steps = [Edit(parse(text, store.schema), None) for text in ("~Hat", "Age=45")]
        moved[conditional] = method.edit(source, steps)
        read = [x @ method.weight.T + method.bias for x in (source, *moved[conditional])]
        torch.testing.assert_close(read[2][:, 2], torch.full((5,), 0.75), rtol=1e-4, atol=1e-4)
        changes = (read[1] - read[0])[:, [0, 2]], (read[2] - read[1])[:, :2]
        assert all((c.abs().max() < 1e-4) == conditional for c in changes)
    assert method.name == "arithmetic-svm-conditional"
    torch.testing.assert_close((moved[True][0] - source).norm(dim=1), torch.full((5,), 3.0))


@pytest.mark.parametrize("fit", ["logistic", "svm"])
def test_a_large_l2_moves_along_the_difference_of_the_means(tmp_path, fit):
    """Both losses have the slope -y at 0, so the limit of the normals is known; correlated latents tell them apart."""
    z = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    z[:, 1] = 0.9 * z[:, 0] + 0.4 * z[:, 1]
    split = Split(z, (z[:, :1] > 0).float(), [str(i) for i in range(len(z))])
    schema = AttributeSchema((Attribute("Smiling"),))
    store = LatentStore.open(write_store(tmp_path / "store", {"train": split}, schema, "f" * 16, {}))
    standard, label = standardize(z, store.mean, store.std), split.labels[:, 0]
    means = standard[label == 1].mean(0) - standard[label == 0].mean(0)
    near = {}
    with loaded_once():
        for l2 in (1e-3, 1e3):
            method = LatentArithmetic(l2=l2, fit=fit)
            method.prepare(store, space_of(store))
            near[l2] = torch.nn.functional.cosine_similarity(method.step[0], means, dim=0).item()
    assert near[1e3] > 0.9999
    assert near[1e-3] < 0.9


@pytest.mark.parametrize(
    "options",
    [
        {"scale": math.inf},
        {"fit": "ridge"},
        {"directions": "d", "fit": "svm"},
        {"directions": "d", "conditional": True},
        {"directions": "d", "l2": 0.1},
        {"l2": 0.0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=r"^method arithmetic: [^\n]+$"):
        LatentArithmetic(**options)


def test_boundary_moves_latents_by_its_own_length(tmp_path):
    store = store_of(tmp_path, (Attribute("Smiling"), Attribute("Age", "continuous", low=0, high=100)), (3, 8))
    normal = np.zeros((1, 8))
    normal[0, :2] = 0.6, 0.8
    np.save(tmp_path / "b.npy", normal)
    method = LatentArithmetic(scale=2.5, directions={"smiling": tmp_path / "b.npy", "Age": tmp_path / "b.npy"})
    method.prepare(store, space_of(store))
    w = store.split("train").latents[:5]
    z = standardize(w, store.mean, store.std)
    moved = unstandardize(method.edit(z, [Edit(parse("~Smiling", store.schema), None)])[0], store.mean, store.std)
    torch.testing.assert_close(moved - w, -2.5 * torch.tensor(normal).float().expand(5, 3, 8), rtol=1e-4, atol=1e-5)
    [aged] = method.edit(z, [Edit(parse("Age=55", store.schema), None)])
    predicted = aged @ method.weight[1] + method.bias[1]
    torch.testing.assert_close(predicted, torch.full((5,), 0.55), rtol=1e-4, atol=1e-4)
    off = unstandardize(aged, store.mean, store.std) - w
    assert off[..., 2:].abs().max() < 1e-4 < 1e-3 < off[..., :2].abs().min()


def test_diffae_classifier_edits_as_its_authors_do(tmp_path):
    path = diffae_checkpoint(tmp_path / "cls.ckpt", "cls")
    state = torch.load(path, weights_only=False)["state_dict"]
    mean, std = state["conds_mean"][0], state["conds_std"][0]
    store = store_of(tmp_path, (Attribute("Male"), Attribute("Smiling"), Attribute("Hat")))
    amplitude = 0.3
    method = LatentArithmetic(scale=amplitude * math.sqrt(8), directions=path)
    method.prepare(store, space_of(store))
    z_sem = store.split("train").latents[:5]
    w = state["classifier.weight"][31]
    expected = ((z_sem - mean) / std + amplitude * math.sqrt(8) * w / w.norm()) * std + mean
    z = standardize(z_sem, store.mean, store.std)
    moved = unstandardize(method.edit(z, [Edit(parse("Smiling", store.schema), None)])[0], store.mean, store.std)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="no direction for Hat"):
        method.edit(z, [Edit(parse("Hat", store.schema), None)])


def test_wrong_boundaries_are_one_line(tmp_path):
    store = store_of(tmp_path, (Attribute("Smiling"),))
    for array, message in (
        (np.ones((1, 8)), "length 2.83"),
        (np.eye(1, 9), "9 numbers"),
        (np.eye(1, 8) * np.nan, "nan"),
    ):
        np.save(tmp_path / "b.npy", array)
        with pytest.raises(UserError, match=message):
            LatentArithmetic(directions={"Smiling": tmp_path / "b.npy"}).prepare(store, space_of(store))
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"cannot be read as a \.npy file"):
        LatentArithmetic(directions={"Smiling": tmp_path / "b.npy"}).prepare(store, space_of(store))
    with pytest.raises(UserError, match="did you mean Smiling"):
        LatentArithmetic(directions={"Smile": tmp_path / "b.npy"}).prepare(store, space_of(store))


@needs("data/interfacegan")
def test_published_boundaries_load(tmp_path):
    names = {"Age": "age", "Eyeglasses": "eyeglasses", "Male": "gender", "Yaw": "pose", "Smiling": "smile"}
    store = store_of(tmp_path, tuple(Attribute(name) for name in names), (512,))
    files = {name: BOUNDARIES / f"stylegan_ffhq_{file}_w_boundary.npy" for name, file in names.items()}
    method = LatentArithmetic(scale=3.0, directions=files)
    method.prepare(store, space_of(store))
    w = store.split("train").latents[:2]
    z = standardize(w, store.mean, store.std)
    for name, file in files.items():
        moved = unstandardize(method.edit(z, [Edit(parse(name, store.schema), None)])[0], store.mean, store.std)
        expected = torch.from_numpy(3 * np.load(file)).float().expand(2, -1)
        torch.testing.assert_close(moved - w, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"fit": "svm"}, {"conditional": True}])
def test_a_label_that_never_varies_stops_only_those_who_ask_for_it(tmp_path, options):
    schema = AttributeSchema((Attribute("Hat"), Attribute("Age", "continuous", low=0, high=9), Attribute("Smiling")))
    z = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.stack([torch.ones(60), torch.full((60,), 3.0), (z[:, 0] > 0).float()], 1)
    rows = Split(z, labels, [str(i) for i in range(60)])
    store = LatentStore.open(write_store(tmp_path / "s", {"train": rows}, schema, "g", {}))
    method = LatentArithmetic(**options)
    method.prepare(store, space_of(store))
    assert (method.edit(torch.zeros(2, 4), [Edit(parse("Smiling", schema), None)])[0][:, 0] > 2).all()
    for asked in ("Hat", "age=5"):
        with pytest.raises(UserError, match=r"no direction for .*; it is categorical, has no labels that vary"):
            method.edit(torch.zeros(2, 4), [Edit(parse(asked, schema), None)])

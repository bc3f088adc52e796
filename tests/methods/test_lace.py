"""LACE's samplers against closed forms on linear and quadratic energies, and as a method in worlds with a mapping."""

import math
from pathlib import Path

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import Is, asked, conjunction, merge, parse
from lcg_lightning.data.encode import store as write_rows
from lcg_lightning.data.sources.exact import ExactFaces
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.generators.load import load_generator
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.lace import LACE, gradient_flow, langevin
from lcg_lightning.models.clean import CleanClassifier
from lcg_lightning.synthfaces.faces import SCHEMA
from tests.evaluation import small

TIME = 0.05 * (1 - 1e-3) + 4.975 * (1 - 1e-6)
"""The integral of beta(t) / 2 from 1e-3 to 1."""
NUMBERS = AttributeSchema((Attribute("size", "continuous"), Attribute("shade", "continuous")))
A = torch.tensor([[0.15, 0.05, 0.0], [0.0, 0.4, -0.7]], dtype=torch.float64)
Z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linear(z):
    """Outputs of NUMBERS: means 0.5 + A z, variance 0.1^2."""
    mean = 0.5 + z @ A.T
    spread = torch.full_like(mean, 2 * math.log(0.1))
    return torch.stack([mean, spread], 2).flatten(1)


def editor(**options):
    method = LACE(Path("none"), **options)
    method.classifier, method.schema, method._used = linear, NUMBERS, {"nfe": (0.0, 0), "edit_nfe": (0.0, 0)}
    return method


def one(condition):
    return [Edit(condition, condition)]


def test_under_a_linear_log_density_the_ode_moves_by_its_time_times_the_gradient():
    slope = torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64)
    found, evaluations = gradient_flow(lambda rows, z: z @ slope, Z, 1e-6)
    torch.testing.assert_close(found, Z + TIME * slope, rtol=0, atol=1e-5)
    assert abs(TIME - 5.025) < 1e-3
    assert (evaluations >= 4).all()


def test_langevin_on_a_gaussian_energy_is_the_chain_of_its_closed_form():
    """z' = r z + h m + s n with r = 1 - h (1 + k), for the energy -k |z - m / k|^2 / 2 - |z|^2 / 2."""
    k, h, s, steps = 3.0, 0.1, 0.3, 60
    m = torch.tensor([2.0, -1.0], dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    start = torch.full((20000, 2), 3.0, dtype=torch.float64)

    def noise(step):
        return torch.randn(start.shape, generator=g, dtype=torch.float64)

    def energy(rows, z):
        return -k / 2 * (z - m / k).square().sum(1) - z.square().sum(1) / 2

    for length in (3, steps):
        found = langevin(energy, start, noise, length, h, s)
        r = 1 - h * (1 + k)
        mean = m / (1 + k) + r**length * (3 - m / (1 + k))
        variance = s**2 * (1 - r ** (2 * length)) / (1 - r**2)
        torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.012)
        torch.testing.assert_close(found.var(0), torch.full((2,), variance).double(), rtol=0.04, atol=0)


def test_an_edit_ends_where_target_and_regularizers_balance():
    """The energy is quadratic: exact solution of the flow, and near its fixed point at a large scale."""
    target = torch.linspace(0.2, 0.8, 50)
    condition = Is("size", target)
    for scale, weight, keep in ((1.0, 0.04, 0.01), (40.0, 0.04, 3.0), (40.0, 0.2, 0.0)):
        method = editor(scale=scale, reg_latents=weight, reg_logits=keep, tolerance=1e-6)
        (found,) = method.edit(Z, one(condition))
        a, b = A
        pull = scale * a / 0.01
        hessian = torch.outer(pull, a) + 2 * weight * torch.eye(3) + 2 * keep * torch.outer(b, b)
        fixed = torch.linalg.solve(hessian, pull)
        share = torch.eye(3) - torch.linalg.matrix_exp(-TIME * hessian)
        distance = target.double() - 0.5 - Z @ a
        torch.testing.assert_close(found, Z + distance[:, None] * (share @ fixed), rtol=0, atol=2e-4)
        if scale > 1:  # what is asked for is met but for the regularizers' share
            size, shade = linear(found)[:, 0], linear(found)[:, 2]
            assert (size - target).abs().max() < 0.01
            moved = (shade - linear(Z)[:, 2]).abs().max()
            assert (moved < 0.03) == (keep > 0)


def test_attributes_that_were_asked_for_are_free_to_change():
    row = torch.tensor([[0.7, math.nan], [math.nan, 0.2], [0.1, 0.1]])
    condition = conjunction(row, NUMBERS)
    assert asked(condition, NUMBERS, 3).tolist() == [[True, False], [False, True], [True, True]]
    whole = editor(scale=0.3, reg_logits=1.0).edit(Z[:3], one(condition))[0]
    for i, text in enumerate(("size=0.7", "shade=0.2", "size=0.1 & shade=0.1")):
        alone = editor(scale=0.3, reg_logits=1.0).edit(Z[i : i + 1], one(parse(text, NUMBERS)))[0]
        torch.testing.assert_close(whole[i], alone[0], rtol=0, atol=1e-6)
    words = AttributeSchema((Attribute("Hat"), Attribute("Bald"), Attribute("Smiling")))
    assert asked(parse("~(Hat | Bald)", words), words, 2).tolist() == [[True, True, False]] * 2


def test_langevin_edits_repeat_and_belong_to_their_source():
    steps = one(Is("size", 0.9)) * 2
    options = {"sampler": "langevin", "steps": 20, "noise": 0.1}
    whole = editor(**options).edit(Z, steps)
    parts = [editor(**options).edit(part, steps) for part in Z.split(13)]
    for k in range(2):
        torch.testing.assert_close(whole[k], torch.cat([part[k] for part in parts]), rtol=0, atol=1e-9)
    first, second = whole[0] - Z, whole[1] - whole[0]
    assert (first - first[0]).abs().min(1).values.median() > 1e-3  # every source has noise of its own
    assert (first - second).abs().max() > 0.1  # and so has every step


def test_langevin_edits_end_where_the_odes_do():
    """Without noise, 502 steps of .01 are Euler's method for the ODE, whose time is 5.02; nothing pulls to the mean."""
    steps = one(Is("size", 0.9))
    (climbed,) = editor(sampler="langevin", noise=0.0, steps=502).edit(Z, steps)
    (flowed,) = editor(tolerance=1e-6).edit(Z, steps)
    torch.testing.assert_close(climbed, flowed, rtol=0, atol=0.02)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lace")
    world = ExactWorld(0.3)
    store = LatentStore.open(write_rows(ExactFaces(300, 0, 40).rows(world), world, folder / "store"))
    return world, store, checkpoint(store, folder / "clean.ckpt")


def checkpoint(store, path):
    """A classifier that was never trained, in a file as ``lcg fit`` writes it."""
    torch.manual_seed(0)
    classifier = CleanClassifier(math.prod(store.latent_shape), store.schema.to_json(), (32,))
    content = {"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}
    torch.save(content | {"statistics": (store.mean, store.std)}, path)
    return path


def prepared(store, generator, path, **options):
    method = LACE(path, **options)
    method.prepare(store, space := store.space(generator))
    return method, space


@pytest.mark.parametrize("options", [{}, {"space": "w"}, {"sampler": "langevin", "steps": 10}])
def test_a_result_does_not_depend_on_the_batch(exact, options):
    world, store, path = exact
    rows = torch.full((12, len(SCHEMA)), math.nan)
    rows[:, 1], rows[::2, SCHEMA.index("Age")] = 1, 50
    whole, space = prepared(store, world, path, **options)
    parted, _ = prepared(store, world, path, **options)
    z = space.standardize(store.split("test").latents[:12])
    pieces = torch.arange(12).split(5)

    def noise(index):
        return SampleNoise(3, 100 + index, space.dim)

    with torch.inference_mode():
        generated = whole.generate(conjunction(rows, SCHEMA), noise(torch.arange(12)))
        parts = [parted.generate(conjunction(rows[i], SCHEMA), noise(i)) for i in pieces]
        torch.testing.assert_close(generated, torch.cat(parts), rtol=0, atol=1e-4)
        edits = whole.edit(z, one(conjunction(rows, SCHEMA)))[0]
        parts = [parted.edit(z[i], one(conjunction(rows[i], SCHEMA)))[0] for i in pieces]
    torch.testing.assert_close(edits, torch.cat(parts), rtol=0, atol=1e-4)
    assert (edits - z).abs().max() > 0.1
    assert (whole.nfe, whole.edit_nfe) == (parted.nfe, parted.edit_nfe)
    langevin_steps = options.get("steps")
    assert langevin_steps in (None, whole.nfe)
    assert langevin_steps is None or whole.edit_nfe == langevin_steps + 1


def test_generation_works_in_the_generators_z(exact, tmp_path):
    """With nothing asked for, a sample is the mapped start noise; with a target, its z moved uphill."""
    world, store, path = exact
    generator = load_generator("synthfaces")
    other = LatentStore.open(small.write(tmp_path / "store"))
    for maker, rows, file in ((world, store, path), (generator, other, checkpoint(other, tmp_path / "clean.ckpt"))):
        method, space = prepared(rows, maker, file)
        assert (method.sampler, method.edit_sampler) == ("rkc2 in z", "rkc2 in w")
        noise = SampleNoise(0, torch.arange(6), space.dim)
        start = SampleNoise(0, torch.arange(6), maker.z_dim)(0)
        free = method.generate(Is("Hat", torch.full((6,), math.nan)), noise)
        torch.testing.assert_close(free, space.standardize(maker.map_z(start)))
        moved = method.generate(parse("Hat", SCHEMA), noise)
        before, after = (method.classifier(x)[:, SCHEMA.head("Hat")] for x in (free, moved))
        assert (after > before).all()
        flat, _ = prepared(rows, maker, file, space="w")
        assert flat.sampler == "rkc2 in w"
        torch.testing.assert_close(flat.generate(Is("Hat", torch.full((6,), math.nan)), noise), noise(0))


def test_the_condition_language_holds(exact):
    world, store, path = exact
    method, space = prepared(store, world, path, scale=3.0)
    noise = SampleNoise(0, torch.arange(8), space.dim)
    hat, bald = SCHEMA.head("Hat"), SCHEMA.head("Bald")
    neither = method.classifier(method.generate(parse("~(Hat | Bald)", SCHEMA), noise))
    assert (torch.cat([neither[:, hat], neither[:, bald]], 1) < 0).all()
    either = method.classifier(method.generate(parse("Hat | Bald", SCHEMA), noise))
    assert (torch.cat([either[:, hat], either[:, bald]], 1) > 0).any(1).all()
    first, second = (parse(text, SCHEMA) for text in ("Hat", "~Hat"))
    source = space.standardize(store.split("test").latents[:8])
    on, off = method.edit(source, [Edit(first, first), Edit(second, merge([first, second]))])
    assert (method.classifier(on)[:, hat] > method.classifier(source)[:, hat]).all()
    assert (method.classifier(off)[:, hat] < method.classifier(on)[:, hat]).all()


class Plain(Generator):
    latent_shape = (64,)
    image_size = 64
    fingerprint = ""


def test_mistakes_are_one_line(exact):
    world, store, path = exact
    for options, message in (
        ({"scale": -1.0}, "scale is -1"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"reg_latents": math.nan}, "reg_latents is nan"),
        ({"sampler": "euler"}, "use ode or langevin"),
    ):
        with pytest.raises(UserError, match=message):
            LACE(path, **options)
    plain = Plain()
    plain.fingerprint = store.fingerprint
    with pytest.raises(UserError, match="maps no z to its latents; set space: w"):
        prepared(store, plain, path, space="z")
    assert prepared(store, plain, path)[0].sampler == "rkc2 in w"
    with pytest.raises(UserError, match="CleanClassifier"):
        prepared(store, world, Path(__file__).parents[1] / "models/old_prior.ckpt")

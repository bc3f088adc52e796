"""Guidance as a method, on Gaussian latents whose posterior is known."""

import math
from pathlib import Path

import jsonargparse
import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import Is, merge, parse
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.diffusion.grids import logsnr_grid, observed_grid
from lcg_lightning.diffusion.noise import sample_noise
from lcg_lightning.diffusion.schedule import make_schedule
from lcg_lightning.errors import UserError
from lcg_lightning.methods.arithmetic import LatentArithmetic
from lcg_lightning.methods.base import Edit, Method
from lcg_lightning.methods.lcg import LatentClassifierGuidance, likeliest_targets
from lcg_lightning.methods.unguided import Unguided
from tests.generators.published import diffae_checkpoint

SCHEMA = AttributeSchema((Attribute("Hat"),))
TWO = AttributeSchema((Attribute("Smiling"), Attribute("Hat")))
W = torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64)
SCHEDULE = make_schedule("linear")

HAT = Edit(Is("Hat"), Is("Hat"))


class Normal:
    """The exact prior of N(0, I): eps = sqrt(1 - a) z."""

    schedule = SCHEDULE

    def time_table(self, t):
        known = torch.logit(SCHEDULE.alpha_bar)
        low = t.long().clamp(max=998)
        return torch.lerp(known[low], known[low + 1], t - low).sigmoid()

    def forward_at(self, z, a):
        return (1 - a).sqrt() * z


class Linear(Normal):
    """E[sigmoid(w.z_0) | z_t] as a logit, by MacKay's approximation."""

    schema = SCHEMA

    def __call__(self, z, t):
        return self.forward_at(z, torch.ones((), dtype=torch.float64))

    def forward_at(self, z, a):
        return (a.sqrt() * z @ W / (1 + math.pi / 8 * (1 - a) * W.square().sum()).sqrt())[:, None]


def lcg(**options):
    method = LatentClassifierGuidance("", "", **options)
    method.prior, method.classifier, method.schema = Normal(), Linear(), SCHEMA
    method.grid, method.directions = logsnr_grid(SCHEDULE, method.steps), W[None]
    return method


def noise(n):
    return lambda draw: sample_noise(0, range(n), (3,), draw).double()


PLAIN = {"anchor": "previous", "start": "source", "keep": False, "tau": 1.2}
FORMS = [
    {},
    PLAIN,
    {"start": "filtered"},
    {"source": "bayes"},
    {"source": "likelihood", "eta": 0.3},
    {"source": "none"},
]


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_that_asks_for_nothing_changes_nothing(form):
    nothing = Is("Hat", torch.full((50,), math.nan))
    z = noise(50)(9)
    (edited,) = lcg(steps=20, fixed_point=40, **form).edit(z, [Edit(nothing, nothing)])
    torch.testing.assert_close(edited, z, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_moves_along_the_classifiers_direction_and_no_other(form):
    z = noise(50)(9)
    move = lcg(scale=2.0, fixed_point=40, **form).edit(z, [HAT])[0] - z
    along = move @ W / W.norm()
    assert (along > 0).all()
    across = move - along[:, None] * W / W.norm()
    assert across.abs().max() < 1e-6


def test_the_last_target_of_an_attribute_is_the_one_that_holds():
    """Smiling, then ~Smiling: LCG and arithmetic end where the last one asks, and keep what else was asked."""
    conditions = [parse(text, TWO) for text in ("Smiling & Hat", "~Smiling")]
    edits = [Edit(c, merge(conditions[: k + 1])) for k, c in enumerate(conditions)]
    z = noise(200)(9)
    heads = torch.tensor([[3.0, 0, 0], [0, 3.0, 0]], dtype=torch.float64)
    guided = lcg(scale=4.0, tau=2.0)
    guided.classifier, guided.schema, guided.directions = Linear(), TWO, heads / 3
    guided.classifier.schema = TWO
    guided.classifier.forward_at = lambda z, a: a.sqrt() * z @ heads.T
    moved = LatentArithmetic(scale=8.0)
    moved.schema, (moved.step, moved.weight), moved.bias = TWO, (heads / 3, heads), torch.zeros(2).double()
    for method in (guided, moved):
        first, last = ((state @ heads.T > 0).double().mean(0) for state in method.edit(z, edits))
        assert first.min() > 0.95
        assert last[0] < 0.05
        assert last[1] > 0.95


def two(**options):
    """Smiling and Hat, by heads that are 45 degrees apart."""
    heads = torch.tensor([[3.0, 0, 0], [2, 2, 0]], dtype=torch.float64)
    method = lcg(**options)
    method.classifier, method.schema, method.directions = Linear(), TWO, heads / 5
    method.classifier.schema = TWO
    method.classifier.forward_at = lambda z, a: a.sqrt() * z @ heads.T
    return method, heads


def test_what_nobody_asks_for_is_kept_and_the_order_of_edits_does_not_matter():
    z = noise(200)(9)
    smiling, hat = parse("Smiling", TWO), parse("Hat", TWO)
    changed = {}
    for keep in (False, True):
        method, heads = two(keep=keep)
        after = method.edit(z, [Edit(smiling, smiling)])[0] @ heads.T
        assert (after[:, 0] > 0).double().mean() > 0.95
        changed[keep] = (after[:, 1].sigmoid() - (z @ heads.T)[:, 1].sigmoid()).abs().mean()
    assert changed[True] < 0.6 * changed[False]
    ends = []
    for order in ((smiling, hat), (hat, smiling)):
        steps = [Edit(c, merge(order[: k + 1])) for k, c in enumerate(order)]
        ends.append(method.edit(z, steps)[-1])
    torch.testing.assert_close(*ends)


def test_a_regression_start_is_nearer_to_the_source_than_the_plain_form_at_the_same_success():
    """Directions that the heads read exactly: z moves within their span, and no further than it must."""
    z = noise(200)(9)
    steps = [Edit(c, merge([parse("Smiling", TWO), c])) for c in (parse("Smiling", TWO), parse("Hat", TWO))]
    found = {}
    for name, options in {"default": {}, "plain": {**PLAIN, "scale": 2.0}}.items():
        method, heads = two(**options)
        end = method.edit(z, steps)[-1]
        found[name] = ((end @ heads.T > 0).all(1).double().mean(), (end - z).norm(dim=1).mean())
    assert found["default"][0] >= found["plain"][0]
    assert found["default"][1] < found["plain"][1]


def test_a_filtered_start_lets_pass_what_a_normal_prior_of_the_data_does():
    """A move m without guidance becomes K m, K = S (S + tau^2)^-1, and a little of m - K m that the noise carries."""
    variance, tau = torch.tensor([1.0, 0.25, 0.1]).double(), 0.5

    class Thin(Normal):
        def forward_at(self, z, a):
            return (1 - a).sqrt() * z / (a * variance + 1 - a)

    z, ends = noise(20)(9) * variance.sqrt(), {}
    for start in ("regression", "filtered"):
        method = lcg(start=start, tau=tau, scale=0.0, steps=400, fixed_point=5)
        method.prior, method.directions = Thin(), torch.ones(1, 3).double()
        ends[start] = method.edit(z, [HAT])[0] - z
    share, level = variance / (variance + tau**2), observed_grid(SCHEDULE, 400, tau).alpha_bar[0]
    held = level * tau**2 * share  # the posterior's variance, at the level where sampling starts
    share = share + (held / (held + 1 - level)).sqrt() * (1 - share)
    torch.testing.assert_close(ends["filtered"], share * ends["regression"], rtol=0.02, atol=0)


def test_a_choice_goes_to_its_likeliest_term():
    outputs = torch.tensor([[2.0, -1.0], [-3.0, 0.5]])
    nan = math.nan
    for text, expected in {
        "Smiling | Hat": [[1, nan], [nan, 1]],
        "~(Smiling & Hat)": [[nan, 0], [0, nan]],
        "2*(~Smiling | ~Hat)": [[nan, 0], [0, nan]],
        "(Smiling & Hat) | (~Smiling & ~Hat)": [[1, 1], [0, 0]],
        "Smiling & ~Hat": [[1, 0], [1, 0]],
    }.items():
        found = likeliest_targets(parse(text, TWO), outputs, TWO)
        torch.testing.assert_close(found, torch.tensor(expected).float(), equal_nan=True)


@pytest.mark.parametrize(
    "options",
    [
        *({"scale": x} for x in (-1.0, math.inf, math.nan)),
        *({"interval": x} for x in ((0.5, 0.2), (-0.1, 1.0), (0.0, 2.0), (math.nan, 1.0))),
        *({"tau": x} for x in (0.0, -1.0, math.nan, math.inf)),
        *({"steps": x} for x in (-5, 0, 1)),
        {"fixed_point": -1},
        {"sampler": "dimm"},
        {"eta": 0.5},
        {"source": "bayes", "tau": 1.2},
        {"source": "bayes", "eta": 1.5},
        {"source": "none", "tau": 1.0},
        {"source": "none", "start": "filtered"},
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(options):
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        LatentClassifierGuidance(Path("none"), Path("none"), **options)
    if "steps" in options or "sampler" in options:
        with pytest.raises(UserError, match=r"^[^\n]+$"):
            Unguided(Path("none"), **options)


def test_a_wider_tau_and_a_larger_scale_move_further():
    z = noise(50)(9)
    far = [lcg(scale=s, tau=t).edit(z, [HAT])[0] @ W for s, t in ((1, 0.5), (1, 1.5), (3, 1.5))]
    assert far[0].mean() < far[1].mean() < far[2].mean()


def test_the_default_scale_is_2_for_generation_and_8_for_edits():
    z, draws = noise(10)(9), noise(10)
    assert torch.equal(lcg().generate(Is("Hat"), draws), lcg(scale=2.0).generate(Is("Hat"), draws))
    assert torch.equal(lcg().edit(z, [HAT])[0], lcg(scale=8.0).edit(z, [HAT])[0])
    assert not torch.equal(lcg().edit(z, [HAT])[0], lcg(scale=2.0).edit(z, [HAT])[0])


def test_generation_follows_the_tilted_normal():
    """p(z) sigmoid(w.z) against quadrature along w; nothing happens across."""
    z = lcg(scale=1.0, steps=60).generate(Is("Hat"), noise(4000))
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    weight = torch.exp(-(x**2) / 2) * torch.sigmoid(W.norm() * x)
    expected = (x * weight).sum() / weight.sum()
    along = z @ W / W.norm()
    assert abs(along.mean() - expected) < 0.04
    assert z[:, 2].mean().abs() < 0.05
    assert abs(z[:, 2].std() - 1) < 0.05


def test_unguided_samples_are_the_prior():
    method = Unguided("", steps=30)
    method.prior, method.schema, method.grid = Normal(), SCHEMA, logsnr_grid(SCHEDULE, 30)
    z = method.generate(Is("Hat"), noise(4000))
    assert z.mean(0).abs().max() < 0.06
    torch.testing.assert_close(z.T @ z / 4000, torch.eye(3).double(), rtol=0, atol=0.08)


OWN_SAMPLERS = """
from dataclasses import dataclass
from itertools import pairwise


def euler(eps, noise, grid):
    \"\"\"A deterministic step, then fresh noise of 0.\"\"\"
    z = noise(0)
    for i, (a, b) in enumerate(pairwise(grid.alpha_bar)):
        x0 = (z - (1 - a) ** 0.5 * eps(z, i)) / a**0.5
        z = b**0.5 * x0 + (1 - b) ** 0.5 * eps(z, i) + 0 * noise(i + 1)
    return z


@dataclass
class Repeated:
    times: int = 1

    def __call__(self, eps, noise, grid):
        return [euler(eps, noise, grid) for _ in range(self.times)][-1]
"""


def test_a_sampler_of_ones_own_is_named_by_its_import_path(tmp_path, monkeypatch):
    """From YAML, as in a configuration of ``lcg test``; it agrees with DDIM and its evaluations are counted."""
    (tmp_path / "own_samplers.py").write_text(OWN_SAMPLERS)
    monkeypatch.syspath_prepend(tmp_path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Method, "method")
    repeated = "{class_path: own_samplers.Repeated, init_args: {times: 3}}"
    corrected = "{class_path: lcg_lightning.diffusion.samplers.PredictorCorrector, init_args: {corrections: 2}}"
    found = {}
    for text, name, evaluations in (
        ("ddim", "ddim", 10),
        ("own_samplers.euler", "own_samplers.euler", 20),
        (repeated, "own_samplers.Repeated(times=3)", 60),
        (corrected, "lcg_lightning.diffusion.samplers.PredictorCorrector(corrections=2, step_size=0.1)", 28),
    ):
        options = f"{{prior: p, sampler: {text}, steps: 10}}"
        config = parser.parse_string(
            f"method: {{class_path: lcg_lightning.methods.unguided.Unguided, init_args: {options}}}"
        )
        again = parser.parse_string(parser.dump(config))
        method = parser.instantiate(again).method
        method.prior, method.schema, method.grid = Normal(), SCHEMA, logsnr_grid(SCHEDULE, 10)
        found[text] = method.generate(Is("Hat"), noise(5))
        assert (method.sampler, method.config["sampler"], method.nfe) == (name, name, evaluations)
    torch.testing.assert_close(found["own_samplers.euler"], found["ddim"])
    torch.testing.assert_close(found[repeated], found["ddim"])
    assert (found[corrected] - found["ddim"]).abs().max() > 0.01


def test_the_last_step_alone_gives_the_last_result():
    z, steps = noise(20)(9), [Edit(parse("Smiling", TWO), parse("Smiling", TWO))]
    hat = parse("~Hat", TWO)
    steps.append(Edit(hat, merge([steps[0].asked, hat])))
    equal = {}
    for anchor in ("original", "previous"):
        method, _ = two(anchor=anchor)
        equal[anchor] = torch.equal(method.edit(z, steps)[-1], method.edit(z, steps[-1:])[-1])
    assert equal == {"original": True, "previous": False}


def test_the_evaluations_of_an_edit_are_counted():
    method = lcg(steps=6, fixed_point=2)
    method.edit(noise(4)(0), [HAT, HAT])
    assert method.edit_nfe == (1 + 2 + 1) * 6


def test_the_prior_of_a_diffae_checkpoint_fits_only_its_own_statistics(tmp_path):
    path = diffae_checkpoint(tmp_path / "latent.ckpt", "latent")
    state = torch.load(path, weights_only=False)["state_dict"]
    own = state["conds_mean"][0].double(), state["conds_std"][0].double()
    rows = Split(torch.randn(20, 8), (torch.arange(20) % 2)[:, None].float(), [str(i) for i in range(20)])
    stores = {}
    for name, statistics in {"own": own, "others": None}.items():
        write_store(tmp_path / name, {"train": rows}, SCHEMA, "f" * 16, {}, statistics)
        stores[name] = LatentStore.open(tmp_path / name)
    method = Unguided(path, sampler="ddim", steps=10)
    method.prepare(stores["own"], None)
    z = method.generate(Is("Hat", torch.ones(3)), lambda draw: sample_noise(0, range(3), (8,), draw))
    assert z.shape == (3, 8)
    with pytest.raises(UserError, match="standardized by other statistics"):
        Unguided(path).prepare(stores["others"], None)
    with pytest.raises(UserError, match="holds no latent prior"):
        Unguided(diffae_checkpoint(tmp_path / "autoenc.ckpt")).prepare(stores["own"], None)

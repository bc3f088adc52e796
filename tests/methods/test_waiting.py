"""Nothing in a sampling loop waits for the device: on a GPU where there is one, and by a GPU's rules elsewhere.

Solvers that choose a step size for each sample, dopri5 and rkc2, ask after every step whether samples are left; they
are no part of this.
"""

import contextlib
import math

import pytest
import torch

from lcg_lightning.conditions import And, Is, parse
from lcg_lightning.diffusion import samplers
from lcg_lightning.diffusion.grids import logsnr_grid
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.methods import cfg, lace, lcg
from lcg_lightning.methods.base import Edit
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.clean import CleanClassifier
from lcg_lightning.models.conditional import ConditionalPrior
from lcg_lightning.models.prior import LatentPrior
from tests.accelerator import DEVICE, Accelerator, Cuda, Waited
from tests.toy_latents import SCHEMA, D

SIZE = {"hidden": 16, "layers": 3}
SAMPLERS = ["ddim", "ddpm", "dpmpp_2m", "heun", samplers.PredictorCorrector()]
PLAIN = {"anchor": "previous", "start": "source", "keep": False}
OWN = And((Is("on", torch.tensor([1.0, 0, math.nan, 1, 0])), Is("size", torch.tensor([11.0, math.nan, 19, 12, 13]))))
"""Targets of each sample, which conditions from label rows have; they are on the CPU here."""
CHOICE = parse("2*size=15 & (~on | kind=left)", SCHEMA)


@pytest.fixture(params=["a GPU's rules", "GPU"])
def machine(request):
    if request.param == "GPU" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    with Accelerator() if request.param != "GPU" else contextlib.nullcontext(Cuda()) as machine:
        yield machine


def guided(**options):
    method = lcg.LatentClassifierGuidance("", "", steps=4, **options)
    method.prior, method.classifier = LatentPrior(D, **SIZE), LatentClassifier(D, SCHEMA.to_json(), **SIZE)
    method.grid, method.schema = logsnr_grid(method.prior.schedule, 4), SCHEMA
    directions = 0.1 * torch.ones(len(SCHEMA), D)
    directions[2] = math.nan
    method.register_buffer("directions", directions)
    return method


def free(**options):
    method = cfg.ClassifierFreeGuidance("", "", steps=4, **options)
    method.prior = ConditionalPrior(D, SCHEMA.to_json(), **SIZE)
    method.classifier = LatentClassifier(D, SCHEMA.to_json(), **SIZE)
    method.grid, method.schema = logsnr_grid(method.prior.schedule, 4), SCHEMA
    return method


def energy():
    method = lace.LACE("", sampler="langevin", steps=3)
    method.classifier, method.schema, method.in_z = CleanClassifier(D, SCHEMA.to_json(), (8,)), SCHEMA, False
    return method


def answers(method, condition, place, device):
    """Latents (5, D) by a method, of which the networks are moved by ``place``."""
    place(method.eval().requires_grad_(False))
    with torch.no_grad():
        drawn = method.generate(condition, SampleNoise(0, torch.arange(5), D, device))
        source = SampleNoise(1, torch.arange(5), D, device)(0)
        return drawn, *(method.edit(source, [Edit(condition, condition)]) if method.name != "lace" else ())


@pytest.mark.parametrize("condition", [OWN, CHOICE], ids=["targets of samples", "a choice"])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        *((guided, {"sampler": sampler}) for sampler in SAMPLERS),
        *((guided, {**PLAIN, "source": form}) for form in ("observation", "bayes", "likelihood", "none")),
        *((free, {"sampler": sampler}) for sampler in SAMPLERS),
        (energy, {}),
    ],
)
def test_no_step_waits_for_the_device_and_results_are_those_of_the_cpu(make, options, condition, machine, monkeypatch):
    if make is free and condition is CHOICE:
        condition = parse("on & size=15", SCHEMA)

    def watching(loop):
        def watched(*args):
            with machine.without_waiting():
                return loop(*args)

        return watched

    def run(sample, eps):
        return samplers.run(watching(sample), eps)

    expected = answers(seeded(make, options), condition, lambda module: module, "cpu")
    monkeypatch.setattr(lcg, "run", run)
    monkeypatch.setattr(cfg, "run", run)
    monkeypatch.setattr(lace, "langevin", watching(lace.langevin))
    found = answers(seeded(make, options), condition, machine.place, machine.device)
    for z, wanted in zip(found, expected, strict=True):
        assert z.device.type == machine.device.type
        torch.testing.assert_close(z.cpu(), wanted, rtol=1e-4, atol=1e-4)


def seeded(make, options):
    torch.manual_seed(0)
    return make(**options)


@pytest.mark.parametrize(
    "wait",
    [
        lambda z: z.sum().item(),
        lambda z: bool((z > 0).any()),
        lambda z: float(z[0, 0]),
        lambda z: z[z > 0],
        lambda z: z.nonzero(),
        lambda z: z.cpu(),
        lambda z: torch.ones(3).to(z.device),
    ],
)
def test_the_watch_knows_what_waits(wait, machine):
    z = torch.ones(3, 3).to(machine.device)
    wait(z)
    with machine.without_waiting(), pytest.raises((Waited, RuntimeError)):
        wait(z)


def test_the_rules_know_two_devices():
    with Accelerator() as machine:
        z = torch.ones(3).to(machine.device)
        with pytest.raises(AssertionError, match="two devices"):
            z + torch.ones(3)
    assert z.device == DEVICE

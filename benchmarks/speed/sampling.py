"""Guided sampling: our fused step and samplers against the bare matrix products and the loops that users would write.

All contestants have the same networks, weights, times and start noise, take the same number of steps, and give the same
latents; that is checked before anything is timed.
"""

import math
import sys
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.speed.measure import Row, compare, take_turns, unmeasured
from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import And, Is, log_prob
from lcg_lightning.diffusion.grids import uniform_grid
from lcg_lightning.diffusion.guidance import guide
from lcg_lightning.diffusion.samplers import ddim, dpmpp_2m, starting_at
from lcg_lightning.diffusion.schedule import make_schedule
from lcg_lightning.networks.latent import LatentClassifierNet, LatentMLP

SCALE, ATTRIBUTES, DIM, LAYERS = 2.0, 3, 512, 10
SIZES = {16: 2048, 256: 2048, 1024: 1024}
"""Batch to the prior's width; the classifier is a quarter as wide."""
FLOOR = {16: 1.08, 256: 1.05, 1024: None}
STEPS = {16: 20, 256: 5, 1024: 4}


def rows(tiny: bool) -> list[Row]:
    found = []
    for batch, hidden in ({4: 32} if tiny else SIZES).items():
        found += at_batch(batch, hidden, 5 if tiny else STEPS[batch])
    return found


def bare_products(net: LatentMLP, batch: int, gradient: bool) -> Callable[[], None]:
    """The matrix products of one forward pass, and of the gradient with respect to the input, and nothing else."""
    weights = [m.weight.detach() for m in [*net.linears, net.output]]
    inputs = [torch.randn(batch, w.shape[1]) for w in weights]
    outputs = [torch.empty(batch, w.shape[0]) for w in weights]

    def run() -> None:
        for x, w, y in zip(inputs, weights, outputs, strict=True):
            torch.mm(x, w.T, out=y)
        if gradient:
            for x, w, y in zip(inputs, weights, outputs, strict=True):
                torch.mm(y, w, out=x)

    return run


def at_batch(batch: int, hidden: int, steps: int) -> list[Row]:
    torch.manual_seed(0)
    schema = AttributeSchema(tuple(Attribute(f"a{i}") for i in range(ATTRIBUTES)))
    condition = And(tuple(Is(name) for name in schema.names))
    schedule = make_schedule("linear")
    grid = uniform_grid(schedule, steps)
    prior = LatentMLP(DIM, hidden, LAYERS).requires_grad_(False)
    classifier = LatentClassifierNet(DIM, schema.num_outputs, hidden=hidden // 4, layers=4).requires_grad_(False)
    start = torch.randn(batch, DIM)
    forward, both = bare_products(prior, batch, False), bare_products(classifier.trunk, batch, True)
    levels = schedule.alpha_bar.float()

    def floor() -> None:
        for _ in range(steps):
            forward()
            both()

    def ours(sampler: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: sampler(
            guide(prior, classifier, condition, schema, schedule, grid, scale=SCALE), starting_at(start), grid
        )

    def joint_gradient(z: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            return torch.autograd.grad(F.logsigmoid(classifier(z, t)).sum(), z)[0]

    @torch.no_grad()
    def guided_diffusion() -> Tensor:
        """Algorithm 2 of arXiv 2105.05233 with one gradient per attribute; each step reads its time for every row."""
        z = start
        for i, time in enumerate(grid.t):
            t = torch.full((batch,), int(time))
            a = levels[t][:, None]
            b = levels[torch.full((batch,), int(grid.t[i + 1]))][:, None] if i + 1 < steps else torch.ones(batch, 1)
            eps = prior(z, t)
            for term in condition.terms:
                with torch.enable_grad():
                    x = z.detach().requires_grad_()
                    value = log_prob(term, classifier(x, t), schema).sum()
                    eps = eps - SCALE * (1 - a).sqrt() * torch.autograd.grad(value, x)[0]
            x0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
            z = b.sqrt() * x0 + (1 - b).sqrt() * eps
        return z

    @torch.no_grad()
    def diffusers_loop(name: str) -> Tensor:
        scheduler = schedulers[name]
        scheduler.set_timesteps(steps)
        z = start
        for time in scheduler.timesteps:
            t = time.expand(batch)
            eps = prior(z, t) - SCALE * (1 - scheduler.alphas_cumprod[time]).sqrt() * joint_gradient(z, t)
            z = scheduler.step(eps, time, z).prev_sample
        return z

    contestants: dict[str, Callable[[], object]] = {
        "bare products": floor,
        "DDIM": ours(ddim),
        "DPM-Solver++(2M)": ours(dpmpp_2m),
        "guided-diffusion's loop": guided_diffusion,
    }
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    betas = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", timestep_spacing="trailing")
    schedulers = {
        "diffusers DDIM": DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **betas),
        "diffusers DPM-Solver++": DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", **betas
        ),
    }
    contestants |= {name: (lambda name=name: diffusers_loop(name)) for name in schedulers}
    k = k_diffusion()
    if k is not None:
        model = k.external.DiscreteEpsDDPMDenoiser(lambda x, t: prior(x, t), levels, quantize=False)
        sigmas = torch.tensor([math.sqrt((1 - a) / a) for a in grid.alpha_bar])

        def denoised(x: Tensor, sigma: Tensor) -> Tensor:
            """Guided as in the package's own scripts: the gradient, times the variance, moves the denoised latents."""
            t, scale = model.sigma_to_t(sigma), (sigma**2 + 1).rsqrt()[:, None]
            return model(x, sigma) + SCALE * (sigma**2)[:, None] * scale * joint_gradient(x * scale, t)

        def k_sample(sampler: Callable[..., Tensor]) -> Tensor:
            with torch.no_grad():
                return sampler(denoised, start / math.sqrt(grid.alpha_bar[0]), sigmas, disable=True)

        contestants["k-diffusion Euler"] = lambda: k_sample(k.sampling.sample_euler)
        contestants["k-diffusion DPM++ 2M"] = lambda: k_sample(k.sampling.sample_dpmpp_2m)

    pairs = {
        "DDIM": ["guided-diffusion's loop", "diffusers DDIM", "k-diffusion Euler"],
        "DPM-Solver++(2M)": ["diffusers DPM-Solver++", "k-diffusion DPM++ 2M"],
    }
    for own, peers in pairs.items():
        for peer in peers:
            if peer in contestants:
                mine, theirs = contestants[own](), contestants[peer]()
                torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2, msg=lambda m, p=peer: f"{p}: {m}")
    costs = take_turns(contestants)
    where = f"batch {batch}, {DIM}-d x {hidden}"
    found = [compare(f"{where}: floor", costs, "DDIM", "bare products", at_most=FLOOR.get(batch))]
    for own, peers in pairs.items():
        for peer in peers:
            mark = 1.4 if "guided" in peer else 1.0
            if peer in costs:
                found.append(compare(f"{where}: {peer}", costs, own, peer, at_least=mark))
            else:
                found.append(unmeasured(f"{where}: {peer}", "k-diffusion is missing: extra bench", at_least=mark))
    return found


def k_diffusion() -> ModuleType | None:
    """The package; CLIP, which its evaluation imports and nothing here uses, is left out."""
    sys.modules.setdefault("clip", ModuleType("clip"))
    try:
        import k_diffusion as found
    except ImportError:
        return None
    return found

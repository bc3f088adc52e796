"""Cost of one guided step, fused and with one gradient per attribute, as ratios to bare matrix products.

Rounds of the contestants alternate and the median is taken, so that load from elsewhere falls on all alike.
"""

import math
import statistics
import time
from collections.abc import Callable

import jsonargparse
import torch
from torch import Tensor

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import And, Is, log_prob
from lcg_lightning.diffusion.grids import uniform_grid
from lcg_lightning.diffusion.guidance import guide
from lcg_lightning.diffusion.schedule import make_schedule
from lcg_lightning.networks.latent import LatentClassifierNet, LatentMLP


def bare_products(net: LatentMLP, passes: int, batch: int) -> Callable[[], None]:
    """The matrix products of so many passes of a network, without anything between them."""
    weights = [m.weight.detach() for m in [*net.linears, net.output]]
    inputs = [torch.randn(batch, w.shape[1], device=w.device) for w in weights]
    outputs = [torch.empty(batch, w.shape[0], device=w.device) for w in weights]

    def run() -> None:
        for _ in range(passes):
            for x, w, y in zip(inputs, weights, outputs, strict=True):
                torch.mm(x, w.T, out=y)

    return run


def main(
    batch: int = 256,
    dim: int = 512,
    hidden: int = 2048,
    layers: int = 10,
    attributes: int = 3,
    rounds: int = 15,
    device: str = "cpu",
) -> None:
    """Print the median milliseconds of one step and their ratios.

    Args:
        batch: latents sampled at once.
        dim: width of a latent.
        hidden: width of the prior; the classifier is a quarter as wide.
        layers: linear layers of the prior; the classifier has four.
        attributes: number of binary attributes that are asked for.
        rounds: rounds of measurement.
        device: where to run.
    """
    schema = AttributeSchema(tuple(Attribute(f"a{i}") for i in range(attributes)))
    condition = And(tuple(Is(name) for name in schema.names))
    schedule = make_schedule("linear")
    grid = uniform_grid(schedule, 20)
    prior = LatentMLP(dim, hidden, layers).to(device).requires_grad_(False)
    classifier = LatentClassifierNet(dim, schema.num_outputs, hidden=hidden // 4, layers=4).to(device)
    z = torch.randn(batch, dim, device=device)
    fused = guide(prior, classifier, condition, schema, schedule, grid, scale=2.0)

    def per_attribute(z: Tensor, i: int) -> Tensor:
        t = torch.full((batch,), grid.t[i], device=device)
        alpha_bar = schedule.alpha_bar.to(z)[t.long()][:, None]
        out = prior(z, t)
        for term in condition.terms:
            x = z.detach().requires_grad_()
            value = log_prob(term, classifier(x, t), schema)
            out = out - 2.0 * (1 - alpha_bar).sqrt() * torch.autograd.grad(value.sum(), x)[0]
        return out

    torch.testing.assert_close(fused(z, 3), per_attribute(z, 3), rtol=1e-3, atol=1e-4)
    one_pass, two_passes = bare_products(prior, 1, batch), bare_products(classifier.trunk, 2, batch)
    contestants: dict[str, Callable[[], object]] = {
        "bare products": lambda: (one_pass(), two_passes()),
        "fused": lambda: fused(z, 3),
        "per attribute": lambda: per_attribute(z, 3),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    bare = statistics.median(seconds["bare products"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<14} {1e3 * median:8.2f} ms  {median / bare:5.2f} x bare")
    print(f"{math.prod(z.shape)} numbers a step on {device}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=False)

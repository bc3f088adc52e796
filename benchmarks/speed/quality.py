"""Quality over function evaluations in the exact world, whose truth is known: generation by sampler, and edits.

An evaluation is one call of prior and classifier for a batch. All rows of a table share noise, conditions and sources,
so their differences are far less noisy than each figure. The judge is the truth.
"""

from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lcg_lightning.conditions import Condition, merge
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.accuracy import joint_scores
from lcg_lightning.evaluation.metrics.conditional import DRAWS, TRUTH_SEED, condition_codes, energy_distances
from lcg_lightning.evaluation.metrics.frechet import frechet_distance
from lcg_lightning.evaluation.tasks import Conditional, Editing
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.lcg import LatentClassifierGuidance
from lcg_lightning.methods.oracle import Oracle

EDITED = ["Yaw", "Smiling", "Age", "Eyeglasses"]


class World:
    """The exact world of a store, its val rows, and the networks trained on it."""

    def __init__(self, store: Path, prior: Path, classifier: Path, n: int) -> None:
        self.world = ExactWorld()
        self.store = LatentStore.open(store, self.world)
        self.space = self.store.space(self.world)
        rows = self.store.split("val")
        if not 2 <= n <= len(rows.labels):
            raise UserError(f"quality: n is {n}; {store} has {len(rows.labels)} val rows; give 2 to that number")
        self.reference = self.space.standardize(torch.as_tensor(rows.latents)).double()
        self.labels, self.index = torch.as_tensor(rows.labels[:n]), torch.arange(n)
        self.sources = self.reference[:n].float()
        self.networks = {"prior": prior, "classifier": classifier}

    def method(self, **options: object) -> LatentClassifierGuidance:
        """LCG, ready."""
        method = LatentClassifierGuidance(**self.networks, **options)  # type: ignore[arg-type]
        method.prepare(self.store, self.space)
        return method

    def joint(self, z: Tensor, asked: Condition) -> float:
        """The share of latents (B, D) that truly meet their whole condition."""
        found = self.world.labels(self.space.unstandardize(z))
        return joint_scores([found], [asked], self.store.schema).nanmean().item()


def generation(
    at: World, ask: int, samplers: Sequence[str], evaluations: Sequence[int], scales: Sequence[float]
) -> Table:
    """One row for each guidance scale, sampler and number of evaluations; ``ask`` attributes are asked for at once."""
    (asked,) = Conditional(ask=ask).steps(at.labels, at.index, at.store.schema)
    noise, d = SampleNoise(0, at.index, at.space.dim, torch.device("cpu")), at.space.dim
    codes = condition_codes(asked, at.store.schema, len(at.index))
    draws = [
        at.world.sample(asked, SampleNoise(TRUTH_SEED + k, at.index, d, torch.device("cpu"))) for k in range(DRAWS)
    ]
    kept = torch.stack([found for _, found in draws]).all(0)
    exact = [at.world.coordinates(w)[kept] for w, _ in draws]
    title = f"generation, {ask} attributes, n = {len(at.index)}"
    table = Table("scale", "sampler", "evaluations", "joint", "energy", "energy/pooled", "latent Fréchet", title=title)
    for scale in scales:
        for sampler in samplers:
            for wanted in evaluations:
                steps = (wanted + 1) // 2 if sampler == "heun" else wanted
                method = at.method(scale=scale, sampler=sampler, steps=steps, start="source")
                with torch.inference_mode():
                    z = method.generate(asked, noise)
                    points = at.world.coordinates(at.space.unstandardize(z))[kept]
                    far = energy_distances(at.index[kept], codes[kept], points, exact)
                    frechet = frechet_distance(*_moments(z.double()), *_moments(at.reference))
                figures = (at.joint(z, asked), far["energy"].value, far["energy/pooled"].value, frechet)
                table.add_row(f"{scale:g}", sampler, f"{method.nfe:g}", *(f"{x:.4f}" for x in figures))
    return table


def edits(at: World, options: Sequence[dict[str, object]]) -> Table:
    """One row for each set of options of LCG: four edits, one after another, beside the true counterfactuals.

    ``joint`` is the share that meets all four targets. ``error`` is the root mean square distance per dimension between
    result and true counterfactual, ``moved`` that between result and source, ``differs`` that between the result and
    the first row's.
    """
    task = Editing(attributes=EDITED)
    asked = task.steps(at.labels, at.index, at.store.schema)
    steps = [Edit(each, merge(asked[: k + 1])) for k, each in enumerate(asked)]
    oracle = Oracle()
    oracle.prepare(at.store, at.space)
    truth, first = oracle.edit(at.sources, steps)[-1], None
    columns = ("options", "evaluations, all four", "joint", "error", "moved", "differs")
    table = Table(*columns, title=f"edits, n = {len(at.index)}")
    for each in options:
        method = at.method(**each)
        with torch.inference_mode():
            z = method.edit(at.sources, steps)[-1]
        first = z if first is None else first
        apart = [(z - other).square().mean().sqrt().item() for other in (truth, at.sources, first)]
        named = ", ".join(f"{key} {value}" for key, value in each.items()) or "defaults"
        joint = at.joint(z, steps[-1].merged)
        table.add_row(named, f"{method.edit_nfe * len(steps):g}", *(f"{x:.4f}" for x in (joint, *apart)))
    return table


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.mean(0), z.T.cov()


def main(
    store: Path,
    prior: Path,
    classifier: Path,
    n: int = 1000,
    ask: int = 3,
    samplers: list[str] = ["ddim", "dpmpp_2m", "dpmpp_2m_secant", "heun"],  # noqa: B006
    evaluations: list[int] = [5, 7, 9, 11, 13, 21, 51],  # noqa: B006
    scales: list[float] = [1.0, 2.0, 4.0],  # noqa: B006
) -> None:
    """Print both tables.

    Args:
        store: of the exact world; ``lcg encode --config configs/encode/synthfaces-exact.yaml`` makes one.
        prior: checkpoint of a ``LatentPrior`` trained on it.
        classifier: checkpoint of a ``LatentClassifier`` trained on it.
        n: val rows to ask about and to edit.
        ask: attributes asked of a sample at once.
        samplers: short names.
        evaluations: budgets; odd ones suit heun, which takes two evaluations for every step besides the last.
        scales: guidance scales.
    """
    torch.set_num_threads(1)
    at = World(store, prior, classifier, n)
    console = Console(width=120)
    pairs = [(20, 3), (20, 1), (20, 0), (10, 2), (10, 1), (10, 0), (7, 1), (7, 0), (5, 1), (5, 0)]
    console.print(edits(at, [{"steps": steps, "fixed_point": iterations} for steps, iterations in pairs]))
    console.print(generation(at, ask, samplers, evaluations, scales))


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=False)

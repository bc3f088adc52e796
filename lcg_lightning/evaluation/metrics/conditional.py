"""Distance of generated latents to the true conditional distribution, where the generator can sample it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg_lightning.attributes import TOLERANCE, AttributeSchema
from lcg_lightning.conditions import Condition, to_text
from lcg_lightning.conditions.labels import per_sample
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import ImageMetric, Setting
from lcg_lightning.evaluation.metrics.kernels import GROUPS, without_each_group
from lcg_lightning.evaluation.metrics.rows import flat, unflat
from lcg_lightning.evaluation.metrics.two_samples import accuracy
from lcg_lightning.formats.fingerprint import digest
from lcg_lightning.generators.base import Truth
from lcg_lightning.kept import once

TRUTH_SEED = 1 << 40
"""Seed of the exact samples, the same for every method and, at any usual seed, independent of the oracle's."""
DRAWS = 2
"""Exact samples for each generated one."""
WIDTH = 2 * TOLERANCE
"""Difference between two continuous targets, as a share of the range, at which their conditions are no longer alike."""
_BLOCK = 2**17  # distances held at once


class TrueConditional(ImageMetric):
    """Compares generated latents with exact samples of the same conditions, where the generator knows the truth.

    Latents are compared in :meth:`~lcg_lightning.generators.base.Truth.coordinates`, in which they are standard normal,
    so that a unit means the same in every direction and at every curvature.

    ``energy`` is the energy distance (Székely and Rizzo, 2013) 2 E|x - y| - E|x - x'| - E|y - y'| within a condition,
    averaged over conditions by the square of their frequency; 0 if every condition's samples follow its true
    distribution. Pairs of samples count by how :func:`alike` their conditions are, so a condition with a continuous
    target is compared with its neighbours. ``energy/pooled`` counts all pairs alike: it compares what all conditions
    give together, with much less noise, and is blind to answers that ignore what was asked. Both are U-statistics over
    pairs of different samples, without bias and so possibly negative; their intervals are a jackknife over ten groups.
    Two independent exact samples, as in the oracle's row, show the noise.

    ``c2st`` is the :func:`~lcg_lightning.evaluation.metrics.two_samples.accuracy` of a classifier that tells generated
    from exact samples and is shown the condition: .5 at best.

    Samples whose condition is too rare for the exact sampler, or one that it refuses, do not count.
    """

    columns: Sequence[Column] = (
        Column("energy", "Energy distance to truth", digits=4, higher_is_better=False),
        Column("c2st", "Told from truth", higher_is_better=False, low=0.0, high=1.0),
    )
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(torch.float64)
        self.add_state("rows", [], dist_reduce_fx="cat")

    def applies(self, setting: Setting) -> bool:
        """For generation, if the truth is known."""
        return not setting.edits and "truth" in setting.networks

    def prepare(self, setting: Setting) -> None:
        """Records the truth."""
        self.setting = setting
        self.columns = tuple(replace(column, basis=setting.basis("truth")) for column in self.columns)

    def update(self, samples: Judged) -> None:
        """Adds samples, each with its condition and exact samples of it."""
        truth, space = self.setting.truth, self.setting.space
        assert truth is not None
        assert space is not None
        b, device = len(samples.index), samples.result.z.device
        codes = condition_codes(samples.asked, self.setting.schema, b).to(device)
        asked = digest({"index": samples.index, **per_sample(samples.asked)})
        key = ["exact", self.setting.networks["truth"], to_text(samples.asked, self.setting.schema), asked, str(device)]
        drawn = once(key, lambda: exact_samples(truth, samples.asked, samples.index, space.dim, device))
        if drawn is None:
            return
        exact, found = drawn
        rows = torch.cat([codes, truth.coordinates(samples.result.latents), *exact], 1)
        self.rows.append(flat(samples.index[found.cpu()], rows[found]))

    def compute(self) -> dict[str, Estimate]:
        """Both distances; none if fewer than two samples can be compared."""
        code, d = 1 + len(self.setting.schema), self.setting.latent_dim
        if not len(self.rows):
            return {}
        places, rows = unflat(self.rows, code + (1 + DRAWS) * d, type(self).__name__)
        if len(rows) < 2:
            return {}
        index, parts = torch.from_numpy(places), torch.from_numpy(rows)
        codes, x, *exact = parts.split_with_sizes([code] + [d] * (1 + DRAWS), 1)
        found = energy_distances(index, codes, x, exact)
        inputs = classifier_inputs(codes.numpy())
        given, true = (np.concatenate([inputs, latents.numpy()], 1) for latents in (x, exact[0]))
        return {**found, "c2st": accuracy(given, true)}


def exact_samples(
    truth: Truth, asked: Condition, index: Tensor, dim: int, device: torch.device
) -> tuple[list[Tensor], Tensor] | None:
    """The coordinates (B, dim) of :data:`DRAWS` exact samples each, and (B,) bool where they were found.

    None for a condition that cannot be sampled.
    """
    parts, found = [], torch.ones(len(index), dtype=torch.bool, device=device)
    try:
        for draw in range(DRAWS):
            exact, possible = truth.sample(asked, SampleNoise(TRUTH_SEED + draw, index, dim, device))
            parts.append(truth.coordinates(exact))
            found &= possible
    except UserError:
        return None
    return parts, found


def condition_codes(condition: Condition, schema: AttributeSchema, batch: int) -> Tensor:
    """Rows (batch, 1 + A) float64 that tell the samples' conditions apart.

    The first number stands for the condition's text without targets per sample; the others are these targets, on the
    unit scale, NaN where there is none.
    """
    text = hashlib.sha256(to_text(condition, schema).encode()).hexdigest()
    rows = torch.full((batch, len(schema)), torch.nan, dtype=torch.float64)
    for name, target in per_sample(condition).items():
        rows[:, schema.index(name)] = target.double().cpu()
    return torch.cat([torch.full((batch, 1), float(int(text[:12], 16)), dtype=torch.float64), schema.unit(rows)], 1)


def alike(a: Tensor, b: Tensor) -> Tensor:
    """How alike conditions are, (B, M) in [0, 1], from their codes (B, C) and (M, C).

    1 for equal conditions, 0 for different trees, discrete targets or attributes asked; each continuous target
    multiplies by 1 - |difference| / :data:`WIDTH`, at least 0. This is a positive definite kernel, so with it the
    energy distance is 0 only where the conditional distributions are equal.
    """
    a, b = (x.nan_to_num(9.0) for x in (a, b))
    kernel = (a[:, None, 0] == b[None, :, 0]).double()
    for x, y in zip(a[:, 1:].unbind(1), b[:, 1:].unbind(1), strict=True):
        kernel *= (1 - (x[:, None] - y[None]).abs() / WIDTH).clamp_min(0)
    return kernel


def energy_distances(index: Tensor, codes: Tensor, x: Tensor, exact: Sequence[Tensor]) -> dict[str, Estimate]:
    """``energy`` and ``energy/pooled`` of :class:`TrueConditional`; a figure without any pair is left out.

    Args:
        index: (N,) int64, whose remainders modulo 10 are the jackknife's groups.
        codes: conditions (N, C).
        x: generated rows (N, d).
        exact: one or more sets of exact rows (N, d), of the same conditions.
    """
    sets = [x, *exact]
    pairs = list(combinations_with_replacement(range(len(sets)), 2))
    apart, *far = _sums_within_and_pooled([(sets[i], sets[j]) for i, j in pairs], codes, index)
    between = {pair: sums for pair, sums in zip(pairs, far, strict=True)}
    between |= {(j, i): sums.mT for (i, j), sums in between.items()}  # (2, 10, 10) each
    others = range(1, len(sets))
    xy = torch.stack([between[0, j] for j in others]).mean(0)
    yy = torch.stack([between[i, j] for i in others for j in others]).mean(0)

    def statistic(xy: float, xx: float, yy: float, pairs: float) -> float:
        return (2 * xy - xx - yy) / pairs if pairs else float("nan")

    found = {}
    for name, *sums in zip(("energy", "energy/pooled"), xy, between[0, 0], yy, apart, strict=True):
        estimate = without_each_group(sums, statistic)
        if np.isfinite(estimate.value):
            found[name] = estimate
    return found


def _sums_within_and_pooled(sets: Sequence[tuple[Tensor, Tensor]], codes: Tensor, index: Tensor) -> list[Tensor]:
    """Sums (2, 10, 10) by pairs of groups, of ones and of every two sets' distances, by :func:`alike` and plain.

    Pairs (i, i) are left out. Blocks are small enough for the cache, and weights are computed once for all sets.
    """
    totals = torch.zeros(1 + len(sets), 2, GROUPS, GROUPS, dtype=torch.float64)
    groups = torch.nn.functional.one_hot(index % GROUPS, GROUPS).double()
    size = max(1, _BLOCK // len(codes))
    for start in range(0, len(codes), size):
        rows = slice(start, start + size)
        own = groups[rows].T  # (10, B)
        weights = alike(codes[rows], codes)
        plain = torch.ones_like(weights)
        for block in (weights, plain):
            block.diagonal(start).zero_()
        totals[0] += torch.stack([own @ (block @ groups) for block in (weights, plain)])
        for total, (x, y) in zip(totals[1:], sets, strict=True):
            far = torch.cdist(x[rows], y)
            total += torch.stack([own @ ((far * block) @ groups) for block in (weights, plain)])
    return list(totals)


def classifier_inputs(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Conditions as numbers that a classifier can use: which tree, which attributes have targets, and the targets.

    Args:
        codes: (N, C).

    Returns:
        (N, C') without the columns that do not vary.
    """
    trees = np.equal(codes[:, :1], np.unique(codes[:, 0])).astype(float)
    asked = ~np.isnan(codes[:, 1:])
    inputs = np.concatenate([trees, asked, np.where(asked, codes[:, 1:] - 0.5, 0.0)], 1)
    return inputs[:, np.ptp(inputs, axis=0) > 0]

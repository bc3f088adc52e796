"""Fréchet distance from features (n, 2048): our metric's value against clean-fid's and torchmetrics' own functions.

Timed from features to the distance. The whole metric, which gives the value with its interval, has a row of its own.
Features of rank below 2048 arise at n = 1,000, as they do for users.
"""

from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import scipy.linalg
import torch
from cleanfid import fid as cleanfid
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks.speed.measure import Row, compare, take_turns
from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.evaluation.metrics.base import Setting
from lcg_lightning.evaluation.metrics.fid import FrechetDistance
from lcg_lightning.evaluation.metrics.frechet import add_products, frechet_distance, mean_and_covariance

AT_LEAST, EQUAL, ROUNDS, BATCH = 8.0, 1e-6, 5, 1000


def rows(tiny: bool) -> list[Row]:
    d, sizes = (32, (24, 200)) if tiny else (2048, (1_000, 10_000, 50_000))
    return [row for n in sizes for row in at_size(n, d, 2 if tiny else ROUNDS)]


def features(n: int, d: int, seed: int) -> Tensor:
    """Positive, correlated features whose variances fall as a power law, as those of Inception do; float32."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=g) / d**0.5
    scale = torch.arange(1, d + 1) ** -0.5
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed + 1))
    return (noise * scale @ mix + 0.05 * seed).relu() + 0.1


def ours(x: Tensor, y: Tensor) -> float:
    return frechet_distance(*moments(x), *moments(y))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """As the metric computes them: from sums and outer products in float64."""
    d = x.shape[1]
    total, outer = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for part in x.split(BATCH):
        rows = part.double()
        total += rows.sum(0)
        add_products(outer, rows)
    return mean_and_covariance(torch.tensor(len(x)), total, outer)


def with_interval(x: Tensor, y: Tensor) -> float:
    """The whole metric: outer products of ten groups, the distance, and ten more without one group each."""
    metric = FrechetDistance()
    metric.prepare(Setting(AttributeSchema(()), networks={"features": "given @0"}, num_features=x.shape[1]))
    for part, other, index in zip(*(z.split(BATCH) for z in (x, y, torch.arange(len(x)))), strict=True):
        metric.update(SimpleNamespace(result=SimpleNamespace(features=part), index=index))
        metric.update_reference(SimpleNamespace(features=other), index)
    return metric.compute()["fid"].value


def clean_fid(x: np.ndarray, y: np.ndarray) -> float:
    """clean-fid's function. SciPy 1.18 no longer takes the ``disp`` that it passes, so that is dropped on the way."""

    def sqrtm(a: np.ndarray, disp: bool = True) -> tuple[np.ndarray, float]:
        return root(a), 0.0

    root = scipy.linalg.sqrtm
    with patch.object(cleanfid, "linalg", SimpleNamespace(sqrtm=sqrtm)):
        return float(cleanfid.fid_from_feats(x, y))


class Given(nn.Module):
    """Hands features through where torchmetrics expects a network."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.num_features = d

    def forward(self, x: Tensor) -> Tensor:
        return x


def torch_metrics(x: Tensor, y: Tensor) -> float:
    metric = FrechetInceptionDistance(feature=Given(x.shape[1]))
    for part, other in zip(x.split(BATCH), y.split(BATCH), strict=True):
        metric.update(part, real=False)
        metric.update(other, real=True)
    return float(metric.compute())


def at_size(n: int, d: int, rounds: int) -> list[Row]:
    x, y = features(n, d, 0), features(n, d, 1)
    values: dict[str, float] = {}
    contestants = {
        "ours": lambda: values.update(ours=ours(x, y)),
        "with interval": lambda: values.update({"with interval": with_interval(x, y)}),
        "clean-fid": lambda: values.update({"clean-fid": clean_fid(x.double().numpy(), y.double().numpy())}),
        "torchmetrics": lambda: values.update(torchmetrics=torch_metrics(x, y)),
    }
    costs = take_turns(contestants, rounds, warm_up=0)
    found = []
    for mine, peer, mark in (
        ("ours", "clean-fid", AT_LEAST),
        ("ours", "torchmetrics", None),
        ("with interval", "clean-fid", None),
    ):
        apart = abs(values[mine] - values[peer]) / values[peer]
        note = f"values differ by {apart:.1e}, relatively" + ("" if apart <= EQUAL else f"; not equal to {EQUAL:.0e}")
        name = f"d {d}, n {n}: {peer}" + (", eleven distances against one" if mine == "with interval" else "")
        found.append(compare(name, costs, mine, peer, at_least=mark, faster=True, note=note))
    return found

"""Every metric on two processes against NumPy on the concatenated data."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import conjunction
from lcg_lightning.diffusion.noise import sample_noise
from lcg_lightning.evaluation.metrics import AttributeAccuracy, FrechetDistance, IdentityCosine, UntouchedDrift
from lcg_lightning.evaluation.metrics.base import Setting
from lcg_lightning.evaluation.metrics.conditional import TRUTH_SEED, TrueConditional, classifier_inputs, condition_codes
from lcg_lightning.evaluation.metrics.sets import KID
from lcg_lightning.evaluation.metrics.two_samples import accuracy

SCHEMA = AttributeSchema(
    (
        Attribute("Smiling"),
        Attribute("hair", "categorical", classes=("black", "brown", "blond")),
        Attribute("yaw", "continuous", low=-45, high=45),
    )
)
NAN = float("nan")
N = 7
SPLITS = {"one process": [7], "uneven": [4, 3], "empty rank": [7, 0]}
METRICS = {
    "fid": FrechetDistance,
    "kid": KID,
    "accuracy": AttributeAccuracy,
    "truth": TrueConditional,
    "identity": IdentityCosine,
    "drift": UntouchedDrift,
}


def data():
    """Seven rows of everything, with global indices that are neither contiguous nor in order."""
    g = torch.Generator().manual_seed(0)
    targets = torch.tensor(
        [[1, NAN, 9], [0, 2, NAN], [1, NAN, NAN], [NAN, 0, -45], [1, 1, 0], [NAN, 1, NAN], [0, NAN, 3]]
    )
    predicted = torch.tensor([[1, 0, 16], [0, 1, 0], [0, 2, 9], [1, 0, 45], [1, 1, 0], [0, 1, 9], [0, 0, 12.5]])
    return {
        "indices": torch.tensor([31, 4, 17, 8, 22, 3, 11]),
        "real": torch.randn(N, 3, generator=g) + 2,
        "fake": torch.randn(N, 3, generator=g),
        "targets": targets,
        "predicted": predicted,
        "before": torch.randn(N, 6, generator=g),
        "after": torch.randn(N, 6, generator=g),
    }


def make(name):
    metric = METRICS[name]()
    marks = dict.fromkeys(("judge", "identity", "features", "truth"), "any @0")
    truth = SimpleNamespace(
        sample=lambda condition, noise: (noise(0), torch.ones(len(noise.index), dtype=torch.bool)),
        coordinates=lambda latents: latents.double(),
    )
    space = SimpleNamespace(dim=3, generator=SimpleNamespace(truth=truth))
    metric.prepare(Setting(SCHEMA, edits=True, networks=marks, num_features=3, space=space))
    return metric


def outputs(labels):
    """What a judge that predicts these labels (B, 3) puts out (B, 6)."""
    hair = torch.nn.functional.one_hot(labels[:, 1].long(), 3)
    yaw = SCHEMA.unit(labels)[:, 2:]
    return torch.cat([labels[:, :1] - 0.5, hair, yaw, torch.zeros_like(yaw)], 1)


def update(name, metric, rows):
    """One call of update with a batch of rows."""
    asked = conjunction(rows["targets"], SCHEMA)
    judged = SimpleNamespace(
        index=rows["indices"], asked=asked, wanted=[asked], named=~rows["targets"].isnan(), met_before=None
    )
    if name in ("fid", "kid"):
        judged.result = SimpleNamespace(features=rows["fake"])
        metric.update_reference(SimpleNamespace(features=rows["real"]), rows["indices"])
    elif name == "accuracy":
        judged.result = SimpleNamespace(outputs=outputs(rows["predicted"]))
        judged.steps = [judged.result]
    elif name == "truth":
        judged.result = SimpleNamespace(z=rows["fake"], latents=rows["fake"])
    elif name == "identity":
        judged.source = SimpleNamespace(embeddings=rows["real"])
        judged.steps = [SimpleNamespace(embeddings=rows["fake"])]
    else:
        judged.source, judged.result = (SimpleNamespace(outputs=rows[key]) for key in ("before", "after"))
    metric.update(judged)


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for split in ("uneven", "empty rank"):
        start = sum(SPLITS[split][:rank])
        shard = {key: value[start : start + SPLITS[split][rank]] for key, value in data().items()}
        for name in METRICS:
            metric = make(name)
            for at in range(0, len(shard["indices"]), 2):
                update(name, metric, {key: value[at : at + 2] for key, value in shard.items()})
            results[f"{split}/{name}"] = metric.compute()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Per process, what each metric gave on each split; and on one process, as if on both."""
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(worker, (str(folder),), nprocs=2)
    alone = {}
    for name in METRICS:
        metric = make(name)
        update(name, metric, data())
        alone[f"one process/{name}"] = json.loads(json.dumps(metric.compute()))
    return [alone | json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def bootstrap(values):
    """Mean and percentile interval over samples in index order, one resample at a time."""
    values = np.asarray(values)[np.argsort(data()["indices"].numpy())]
    draws = np.random.default_rng(0).integers(N, size=(1000, N))
    means = [np.nanmean(values[row]) if not np.isnan(values[row]).all() else NAN for row in draws]
    return [np.nanmean(values), *np.nanpercentile(means, [2.5, 97.5])]


def wilson(values):
    """Share of hits with the score interval: the p at which |share - p| is 1.96 standard errors of p."""
    values = np.array([v for v in values if not np.isnan(v)])
    n, share, z = len(values), values.mean(), scipy.stats.norm.ppf(0.975)
    bounds = np.roots([1 + z * z / n, -2 * share - z * z / n, share * share])
    return [share, *np.clip(np.sort(bounds.real), 0, 1)]


def jackknife(value, left_out):
    n, left_out = len(left_out), np.array(left_out)
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    half = scipy.stats.t.ppf(0.975, n - 1) * error
    return [value, value - half, value + half]


def reference(name):
    rows = {key: value.double().numpy() for key, value in data().items()}
    if name == "kid":
        x, y, groups = rows["fake"], rows["real"], rows["indices"] % 10

        def mmd(keep):
            a, b = ((u[keep] @ v[keep].T / 3 + 1) ** 3 for u, v in ((x, x), (y, y)))
            n, cross = keep.sum(), ((x[keep] @ y[keep].T / 3 + 1) ** 3).mean()
            return (a.sum() - a.trace() + b.sum() - b.trace()) / (n * (n - 1)) - 2 * cross

        everything = np.full(N, True)
        return {"kid": jackknife(mmd(everything), [mmd(groups != g) for g in np.unique(groups)])}
    if name == "truth":  # no two conditions are alike, so there is a pooled figure alone
        order = np.argsort(rows["indices"])
        x, groups = rows["fake"][order], rows["indices"][order] % 10
        y, z = (sample_noise(TRUTH_SEED + k, data()["indices"][order], (3,)).double().numpy() for k in range(2))

        def energy(keep):
            places = np.flatnonzero(keep)
            pairs = [(i, j) for i in places for j in places if i != j]

            def mean(p, q):
                return np.mean([np.linalg.norm(p[i] - q[j]) for i, j in pairs])

            exact = (mean(y, y) + mean(y, z) + mean(z, y) + mean(z, z)) / 4
            return mean(x, y) + mean(x, z) - mean(x, x) - exact

        found = jackknife(energy(np.full(N, True)), [energy(groups != g) for g in np.unique(groups)])
        codes = condition_codes(conjunction(data()["targets"][order], SCHEMA), SCHEMA, N)
        given = classifier_inputs(codes.numpy())
        told = accuracy(np.concatenate([given, x], 1), np.concatenate([given, y], 1))
        return {"energy/pooled": found, "c2st": list(told)}
    if name == "fid":
        fake, real, groups = rows["fake"], rows["real"], rows["indices"] % 10

        def distance(x, y):
            cross = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
            return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * cross)

        left_out = [distance(fake[groups != g], real[groups != g]) for g in np.unique(groups)]
        value, low, high = jackknife(distance(fake, real), left_out)
        return {"fid": [value, max(low, 0), high]}
    if name == "identity":
        a, b = rows["real"], rows["fake"]
        cosines = bootstrap((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
        return {"id/step1": cosines, "id": cosines}
    if name == "drift":
        a, b = rows["before"], rows["after"]
        smile = abs(1 / (1 + np.exp(-b[:, 0])) - 1 / (1 + np.exp(-a[:, 0])))
        p, q = (np.exp(x[:, 1:4]) / np.exp(x[:, 1:4]).sum(1, keepdims=True) for x in (a, b))
        moved = np.stack([smile, np.maximum(q - p, 0).sum(1), abs(b[:, 4] - a[:, 4])], 1)
        free = np.isnan(rows["targets"])
        drift = [moved[i, free[i]].mean() if free[i].any() else NAN for i in range(N)]
        return {"drift": bootstrap(drift)}
    scores = {  # by hand: data()'s rows, yaw's range 90
        "acc/Smiling": [1, 1, 0, NAN, 1, NAN, 1],
        "acc/hair": [NAN, 0, NAN, 1, 1, 1, NAN],
        "acc/yaw": [1 - 7 / 90, NAN, NAN, 0, 1, NAN, 1 - 9.5 / 90],
        "acc": [1 - 3.5 / 90, 0.5, 0, 0.5, 1, 1, 1 - 4.75 / 90],
        "acc_joint": [1, 0, 0, 0, 1, 1, 0],
        "acc_joint/step1": [1, 0, 0, 0, 1, 1, 0],
        "acc_joint/without_Smiling": [1, 0, NAN, NAN, 1, NAN, 0],
        "acc_joint/without_hair": [NAN, 1, NAN, 0, 1, NAN, NAN],
        "acc_joint/without_yaw": [1, NAN, NAN, 1, 1, NAN, 1],
    }
    return {key: (bootstrap if key in ("acc", "acc/yaw") else wilson)(values) for key, values in scores.items()}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("split", SPLITS)
def test_agrees_with_numpy_on_the_concatenated_data(results, split, name):
    expected = reference(name)
    for rank in range(2):
        result = results[rank][f"{split}/{name}"]
        assert result.keys() == expected.keys()
        for key, values in expected.items():
            rtol = 1e-6 if key == "acc/yaw" or key == "acc" else 1e-10  # the judge puts out float32
            np.testing.assert_allclose(result[key], values, rtol=rtol, atol=1e-12, err_msg=key)

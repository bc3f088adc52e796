"""Runs with per-sample figures, made without any method."""

import numpy as np
import torch

from lcg_lightning.evaluation import gallery, records, samples
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.metrics.intervals import mean_estimates
from tests.evaluation.test_leaderboard import FINGERPRINTS, record

COLUMNS = [
    Column("acc_joint", "Joint accuracy", low=0, high=1, basis={"judge": "judge @01234567ff"}),
    Column("id_distance", "Identity distance", higher_is_better=False, low=0, high=1),
]
N = 40
"""Samples of a run on the board."""


def run(folder, figures, **changes):
    """Writes a run whose figures (n,) by column name are given."""
    found = dict(zip(figures, mean_estimates(np.stack(list(figures.values()), 1)), strict=True))
    n = len(next(iter(figures.values())))
    written = record(**{"n": n, "columns": COLUMNS, "metrics": found} | changes)
    records.write(written, folder / "record.json")
    samples.write(figures, folder / samples.FILE)
    return written


def trained(seed, scale=2.0, **fingerprints):
    """What tells runs of several training seeds apart."""
    prior = f"runs/prior-{seed}/last.ckpt" if seed else "runs/prior/last.ckpt"
    method = {"class_path": "LCG", "init_args": {"scale": scale, "prior": prior}}
    return {
        "config": {"task": {"class_path": "Editing"}, "method": method},
        "fingerprints": FINGERPRINTS | {"prior": f"{seed}" * 16} | fingerprints,
    }


def figures(seed, hits=None):
    """Per-sample figures (N,); the first samples' hits may be given."""
    rng = np.random.default_rng(seed)
    joint = (rng.random(N) < 0.7).astype(float) if hits is None else np.array(hits + [1.0] * (N - len(hits)))
    return {"acc_joint": joint, "id_distance": rng.uniform(0, 0.3, N)}


def config(curvature, scale):
    task = {"class_path": "Editing", "init_args": {}}
    method = {"class_path": "LCG", "init_args": {"scale": scale}}
    return {"task": task, "method": method, "generator": {"path": "synthfaces-exact", "curvature": curvature}}


def world(curvature):
    return FINGERPRINTS | {"generator": f"{curvature:.1f}", "store": f"{curvature:.1f}"}


def board(folder):
    """Two methods at two strengths in a linear and a curved world, an evil name, one that diverged, and seeds."""
    images = torch.linspace(-1, 1, 8)[:, None, None, None, None].expand(8, 2, 3, 4, 4)  # (k, source and edit, ...)
    kept = [(i, x, ["source", "Hat <b>"]) for i, x in enumerate(images)]
    for k, method in enumerate(("lcg", "<script>alert(1)</script>")):
        for curvature in (0.0, 0.5):
            for scale in (1.0, 2.0):
                name = f"{k}-{curvature}-{scale}"
                command = ["lcg", "test", f"--name={method}", "--out=a b"]
                setting = {"config": config(curvature, scale), "fingerprints": world(curvature)}
                hits = [1.0, 0.0, float("nan")] if k == 0 else None
                run(folder / name, figures(k, hits), method=method, scale=None, command=command, **setting)
                gallery.keep(kept, folder / name / gallery.EDITS)
    failed = {"metrics": {}, "failure": "latents & more", "config": config(0.5, 9.0), "fingerprints": world(0.5)}
    records.write(record(method="lace", columns=COLUMNS, n=N, **failed), folder / "failed/record.json")
    for seed in range(2):
        run(folder / f"seed{seed}", figures(seed), task="other", **trained(seed))
    return folder

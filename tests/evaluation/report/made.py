"""Runs with per-sample figures, made without any method."""

import numpy as np

from lcg_lightning.evaluation import records, samples
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.metrics.intervals import mean_estimates
from tests.evaluation.test_leaderboard import FINGERPRINTS, record

COLUMNS = [
    Column("acc_joint", "Joint accuracy", low=0, high=1, basis={"judge": "judge @01234567ff"}),
    Column("id_distance", "Identity distance", higher_is_better=False, low=0, high=1),
]


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

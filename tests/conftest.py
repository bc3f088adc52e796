"""A world small enough for tests: the demo at its tiniest, made once a session."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from benchmarks.demo import NETWORKS, demo
from benchmarks.worlds import World

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
"""Published files, and recorded outputs of published code, beside a checkout that has them."""


def needs(path):
    """Skips a test where a path below SHARED is missing: such files are not part of the repository."""
    return pytest.mark.skipif(not (SHARED / path).exists(), reason=f"needs {path} beside the checkout")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """What the demo leaves behind: faces, their store, a prior and a classifier trained for a moment, a leaderboard.

    Processes of pytest-xdist share one: the first makes it, and the others wait.
    """
    folder = tmp_path_factory.getbasetemp()
    root = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "world"
    with FileLock(root.with_suffix(".lock")):
        if not (root / "leaderboard.json").exists():
            demo(root, train=300, test=31, steps=2, n=31, n_edit=16)
    return SimpleNamespace(
        root=root,
        faces=root / "faces",
        store=root / "store",
        prior=root / "prior/last.ckpt",
        classifier=root / "classifier/last.ckpt",
        rows=json.loads((root / "leaderboard.json").read_text()),
    )


@pytest.fixture(scope="session")
def evaluate(world):
    """Arguments of ``lcg test`` for a method on a task of the repository, in that world."""

    def arguments(method, task, out, **options):
        here = World("synthfaces", world.root, {}, {})
        networks = {name: here.checkpoint(name, 0) for name in NETWORKS.get(method, ())}
        job = here.evaluation(task, out, task, method, 31, networks)
        return [*job.argv, *(f"--{k}={v}" for k, v in options.items())]

    return arguments

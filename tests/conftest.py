"""A world small enough for tests: the demo's path at its tiniest, made once a session."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lcg_lightning.data.synthfaces import SCHEMA

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Rendered faces, their store, and a prior and a classifier trained for a moment, through the real commands."""
    from lcg_lightning.cli import main

    root = tmp_path_factory.mktemp("world")
    faces, store = root / "faces", root / "store"
    assert main(["render", str(faces), "--train", "300", "--val", "40", "--test", "31"]) == 0
    measures = json.dumps([a for a in SCHEMA.to_json() if a["kind"] == "continuous"])
    encode = [
        "encode",
        str(store),
        str(faces / "images"),
        str(faces / "attributes.txt"),
        "--splits",
        str(faces / "splits.txt"),
    ]
    files = f'["{faces / "pose.txt"}", "{faces / "age.txt"}"]'
    assert main([*encode, "--measure_files", files, "--measures", measures]) == 0
    for name in ("prior", "classifier"):
        fit = [
            "fit",
            "--config",
            str(ROOT / f"configs/debug/{name}.yaml"),
            "--data.init_args.store",
            str(store),
        ]
        options = [
            "--trainer.default_root_dir",
            str(root),
            "--trainer.callbacks.init_args.dirpath",
            str(root / name),
        ]
        assert main([*fit, *options]) == 0
    return SimpleNamespace(
        root=root,
        faces=faces,
        store=store,
        prior=root / "prior/last.ckpt",
        classifier=root / "classifier/last.ckpt",
    )


@pytest.fixture(scope="session")
def evaluate(world):
    """Arguments of ``lcg test`` for a method on a task of the repository, in that world."""

    def arguments(method, task, out, **options):
        files = [ROOT / f"configs/evaluation/{method}.yaml", ROOT / f"benchmarks/tasks/{task}.yaml"]
        networks = {"lcg": ("prior", "classifier"), "real": ()}.get(method, ("prior",))
        return [
            "test",
            *(f"--config={file}" for file in [ROOT / "configs/evaluation/base.yaml", *files]),
            f"--data.init_args.store={world.store}",
            f"--model.init_args.images={world.faces / 'images'}",
            f"--model.init_args.out={out}",
            *(f"--model.init_args.method.init_args.{k}={getattr(world, k)}" for k in networks),
            *(f"--{k}={v}" for k, v in options.items()),
        ]

    return arguments

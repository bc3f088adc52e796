"""The evaluation: the same figures whatever the processes and the batches, and a record that a leaderboard reads."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from lcg_lightning.cli import main, run
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records, samples
from lcg_lightning.evaluation.module import Evaluation
from lcg_lightning.evaluation.tasks import Conditional, Editing
from lcg_lightning.methods.real import Real
from tests.conftest import ROOT
from tests.generators.published import stylegan2_pickle


def launch(arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "lcg_lightning", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def same(a, b):
    assert a.keys() == b.keys()
    for name, estimate in a.items():
        tolerance = (
            0 if (name.startswith("acc/") and name not in ("acc/Age", "acc/Yaw")) or name == "acc_joint" else 1e-4
        )
        assert estimate.value == pytest.approx(b[name].value, rel=tolerance, abs=1e-6 if tolerance else 0), name


@pytest.mark.parametrize(("method", "task", "n"), [("rejection", "conditional-3", 25), ("lcg", "editing", 40)])
def test_processes_and_batches_do_not_change_figures(method, task, n, evaluate, tmp_path):
    """31 rows: 16 + 15 on two processes; more rows than one batch; samples short of and beyond the rows.

    Rejection's cost differs from sample to sample.
    """
    found, figures = {}, {}
    for name, options in {
        "one": {},
        "small batches": {"data.init_args.batch_size": 7},
        "two": {"trainer.devices": 2, "trainer.accelerator": "cpu", "trainer.strategy": "ddp"},
    }.items():
        out = tmp_path / name.replace(" ", "-")
        arguments = evaluate(
            method,
            task,
            out,
            **{"model.init_args.n": n, "model.init_args.method.init_args.steps": 4},
            **options,
        )
        launch(arguments) if name == "two" else run(arguments)
        found[name] = records.read(out / "record.json")
        assert found[name].n == n
        figures[name] = samples.read(out / samples.FILE, found[name])
    same(found["one"].metrics, found["small batches"].metrics)
    same(found["one"].metrics, found["two"].metrics)
    assert found["two"].nfe == pytest.approx(found["one"].nfe)
    assert (tmp_path / "two/samples.png").exists()
    assert figures["one"].keys() == figures["two"].keys() >= {"acc_joint", "acc/Smiling"}
    np.testing.assert_array_equal(figures["one"]["acc_joint"], figures["two"]["acc_joint"])
    for key, values in figures["one"].items():
        np.testing.assert_allclose(values, figures["two"][key], rtol=1e-4, atol=1e-4)


def test_demo_leaves_a_row_for_every_method_and_task(world):
    exact = {row["method"]: row for row in world.rows if row["world"] != "synthfaces"}
    rows = {(row["task"], row["method"], row["scale"]): row for row in world.rows if row not in exact.values()}
    pairs = {(task, method) for task, method, _ in rows}
    tasks, methods = (
        ("conditional-3", "zero-shot", "editing"),
        ("lcg", "regression", "arithmetic", "unguided", "real", "oracle"),
    )
    assert pairs == {(t, m) for t in tasks for m in methods} - {("editing", "unguided")} | {("editing", "lcg-paper")}
    assert exact.keys() == {"lcg", "regression", "arithmetic", "oracle"}
    assert exact["oracle"]["acc_joint"] == 1.0
    assert exact["oracle"]["id_distance"] == pytest.approx(0.0, abs=1e-6)
    for (task, method, _), row in rows.items():
        assert {
            "task",
            "method",
            "n",
            "seeds",
            "nfe",
            "seconds",
            "features",
            "reference",
            "acc_joint",
            "acc",
            "fid",
            "id",
        } <= row.keys()
        assert (row["fid"] is not None) == task.startswith("conditional"), (task, method)
        assert (row["id"] is not None) == (task == "editing")
    real = rows["conditional-3", "real", None]
    assert real["acc_joint"] > 0.8
    assert real["fid"] < rows["conditional-3", "unguided", None]["fid"]
    assert re.fullmatch("31 image files @[0-9a-f]{16} of val at 64 pixels", real["reference"])
    assert rows["editing", "real", None]["id"] == pytest.approx(1.0)
    assert rows["editing", "real", None]["intervals"]["drift"] == [0.0, 0.0]
    names = {path.name for path in world.root.iterdir()}
    assert {"leaderboard.md", "leaderboard.json", "leaderboard.html"} <= names
    assert len([name for name in names if name.startswith("accuracy_identity_editing")]) == 2
    assert len(list(world.root.glob("**/records/*/samples.png"))) == len(world.rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model.init_args.n": 0}, "n is 0"),
        ({"model.init_args.features": "nowhere.pth"}, "nowhere.pth"),
        ({"model.init_args.features": "nowhere.pt"}, "nowhere.pt: the Inception network's file must be named"),
        ({"model.init_args.reference": "test"}, "reference is test, but its rows are what is asked"),
        ({"model.init_args.reference": "dev"}, "reference is dev; give one of train, val, test"),
        ({"model.init_args.images": ROOT / "docs"}, "no image for"),
        ({"model.init_args.judge": "nobody"}, "the zoo has no network 'nobody-attributes'"),
    ],
)
def test_mistakes_are_one_line(options, message, evaluate, tmp_path, capsys):
    assert main(evaluate("real", "conditional-1", tmp_path / "out", **options)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lcg: error:")
    assert message in error
    assert not (tmp_path / "out/record.json").exists()


def test_networks_of_the_zoo_judge_the_zoo_alone(tmp_path):
    stylegan2_pickle(path := tmp_path / "network.pkl", size=64)
    with pytest.raises(UserError, match="without a judge nothing can be measured on the task editing"):
        Evaluation(Editing(["Smiling"]), Real(), generator=str(path))
    with pytest.raises(UserError, match="no identity network to take features from; set features: inception, or none"):
        Evaluation(Conditional(1), Real(), generator=str(path))
    named = Evaluation(Conditional(1), Real())
    assert tuple(network.name for network in named.networks) == ("synthfaces-attributes", "synthfaces-identity")

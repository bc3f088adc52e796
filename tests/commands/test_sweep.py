"""Sweeps: the same file under W&B's agent and under lcg sweep; interrupted, shared and mistaken ones."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from lcg_lightning.cli import main
from lcg_lightning.commands import training
from lcg_lightning.evaluation import records
from tests.conftest import ROOT
from tests.evaluation import exact

SWEEPS = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
SIZE, SEED = "model.init_args.method.init_args.size", "model.init_args.seed"
METHOD = """
import os, time, torch
from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.metrics.base import PerSampleMetric
from tests.evaluation.exact import Nudge

class Slow(Nudge):
    def __init__(self, size: float = 0.3):
        super().__init__(size)

    def generate(self, condition, noise):
        while os.path.exists("hang"):
            open(f"hangs-{os.getpid()}", "w").close()
            time.sleep(0.05)
        return super().generate(condition, noise) / (self.size != 7)

class Near(PerSampleMetric):
    columns = (Column("near", "Near"),)

    def measure(self, samples):
        return samples.result.z[:, :1]

    def compute(self):
        size = float(super().compute()["near"].value)
        return {"near": Estimate(*[size if abs(size) < 5 else float("nan")] * 3)}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a store of the exact world and a method that can be slow, hang, or diverge at size 7."""
    exact.write(tmp_path / "store", {"train": 8, "val": 4, "test": 4})
    (tmp_path / "mine.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT))
    config = {
        "model": {
            "class_path": "Evaluation",
            "init_args": {
                "task": {"class_path": "Conditional", "init_args": {"ask": 1}},
                "method": {"class_path": "mine.Slow"},
                "generator": exact.WORLD,
                "features": "none",
                "n": 4,
            },
        },
        "data": {"class_path": "LatentDataModule", "init_args": {"store": "store"}},
        "trainer": {"accelerator": "cpu", "logger": False, "enable_checkpointing": False},
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def write(folder, **changes):
    given = {
        "method": "grid",
        "metric": {"name": "acc", "goal": "maximize"},
        "parameters": {SIZE: {"values": [0.0, 1.0, 2.0]}, SEED: {"min": 0, "max": 1}},
        "command": [
            "${env}",
            "-S",
            "lcg test --config=test.yaml --model.init_args.out=runs/${WANDB_RUN_ID}",
            "${args}",
        ],
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(given | changes))


def sweep(*options):
    return main(["sweep", "sweep.yaml", "--out=out", *options])


def started(folder, *options):
    paths = os.pathsep.join([str(ROOT), str(folder)])
    command = [sys.executable, "-m", "lcg_lightning", "sweep", "sweep.yaml", "--out=out", *options]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def found(folder):
    """Size and seed of each trial that left a record, with the time of the record."""
    trials = {}
    for path in sorted(folder.glob("out/trial-*/record.json"), key=lambda p: int(p.parent.name.split("-")[1])):
        record = records.read(path)
        trials[path.parent.name] = (record.config["method"]["init_args"]["size"], record.seed, path.stat().st_mtime_ns)
    return trials


GRID = list(itertools.product([0.0, 1.0, 2.0], [0, 1]))


def test_a_grid_runs_every_point_in_order_and_ends_with_the_best(folder, capsys):
    write(folder)
    assert sweep() == 0
    assert [trial[:2] for trial in found(folder).values()] == GRID
    values = {
        name: json.loads((folder / f"out/{name}/record.json").read_text())["metrics"]["acc"]["value"]
        for name in found(folder)
    }
    best = max(values, key=values.get)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:6]] == [f"trial {i} ({i + 1} of 6)" for i in range(6)]
    (told,) = (i for i, line in enumerate(lines) if line.startswith("Best acc: "))
    assert lines[told] == f"Best acc: {max(values.values()):g}, trial {best.split('-')[1]}. To repeat it:"
    rows = [line for line in lines[6:told] if line.split()[:1] and line.split()[0].isdigit()]
    assert sorted(line.split()[:3] for line in rows) == [[str(i), f"{a:g}", str(b)] for i, (a, b) in enumerate(GRID)]
    assert all(line.count("[") == 4 for line in rows)  # wider than 80 columns, and no line is broken
    assert (folder / "out/sweep.png").stat().st_size > 10_000
    program, *again = lines[told + 1].split()
    assert program == "lcg"
    assert main([*again, "--model.init_args.out=again"]) == 0
    repeated = records.read(folder / "again/record.json").metrics["acc"].value
    assert repeated == max(values.values())
    before = found(folder)
    assert sweep() == 0  # nothing is left to run
    assert found(folder) == before


@pytest.mark.parametrize(
    ("storage", "killed"), [([], 2), (["--storage=sqlite:///study.db"], 1)], ids=["file", "sqlite"]
)
def test_processes_share_a_sweep_and_a_killed_one_loses_only_its_trial(folder, storage, killed):
    points = 6
    write(folder, method="random", run_cap=points, parameters={SIZE: {"min": 0.0, "max": 1.0}})
    (folder / "hang").touch()
    processes = [started(folder, *storage) for _ in range(2)]

    def wait_until(what):
        while not what():
            assert all(process.poll() is None for process in processes), processes[0].stdout.read()
            time.sleep(0.02)

    wait_until(lambda: len(list(folder.glob("hangs-*"))) == 2)  # each has a trial
    (folder / "hang").unlink()
    wait_until(lambda: len(found(folder)) >= 2)
    for mark in [*folder.glob("hangs-*"), folder / "hang"]:
        mark.unlink() if mark.exists() else mark.touch()
    wait_until(lambda: len(list(folder.glob("hangs-*"))) == 2)  # each is in the middle of another
    before = found(folder)
    for process in processes[:killed]:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder / "hang").unlink()
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * killed + [0] * (2 - killed), told
    if killed == 2:
        assert sweep(*storage) == 0
    after = found(folder)
    assert 2 <= len(before) < points
    assert {name: after[name] for name in before} == before
    drawn = [np.random.RandomState(point).uniform(0, 1) for point in range(points)]  # of the point, in any process
    assert sorted(trial[0] for trial in after.values()) == pytest.approx(sorted(drawn), abs=1e-9)
    shares = [{line.split()[1] for line in text.splitlines() if line.startswith("trial ")} for text in told]
    assert all(shares)
    assert not shares[0] & shares[1]


def test_a_trial_whose_figure_is_not_finite_fails_alone(folder, capsys):
    config = yaml.safe_load((folder / "test.yaml").read_text())
    config["model"]["init_args"]["metrics"] = [{"class_path": "mine.Near"}]
    (folder / "test.yaml").write_text(yaml.safe_dump(config))
    metric = {"name": "near", "goal": "minimize"}
    write(folder, metric=metric, parameters={SIZE: {"values": [1000.0, 1.0]}})
    assert sweep() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not finite: near" in lines[0]
    assert lines[1].startswith("trial 1 (2 of 2): ")
    assert "Near" in lines[1]


def test_a_diverging_trial_fails_alone(folder, capsys):
    write(folder, parameters={SIZE: {"values": [7.0, 1.0]}})
    assert sweep() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "is not finite" in lines[0]
    assert lines[1].startswith("trial 1 (2 of 2): ")
    write(folder, parameters={SIZE: {"value": 7}})
    assert main(["sweep", "sweep.yaml", "--out=other"]) == 2
    assert "every trial of sweep failed" in capsys.readouterr().err


MISTAKES = {
    "unknown key 'metod'; did you mean method?": {"metod": "grid"},
    "early_terminate is not supported": {"early_terminate": {"type": "hyperband"}},
    "method is 'best'; use grid, random, bayes": {"method": "best"},
    "no parameters; give it": {"parameters": {}},
    "set run_cap, or give --trials": {"method": "bayes"},
    "the distribution 'beta' is not supported": {"parameters": {SIZE: {"distribution": "beta", "min": 0, "max": 1}}},
    "'probabilities' is not supported": {"parameters": {SIZE: {"values": [1, 2], "probabilities": [0.1, 0.9]}}},
    "has no steps, which a grid needs": {"parameters": {SIZE: {"min": 0.0, "max": 1.0}}},
    "min 2 is above max 1": {"parameters": {SIZE: {"min": 2, "max": 1}}},
    "3 is not supported with categorical": {"parameters": {SIZE: {"values": [1], "x": 1, 3: 4}}},
    "the distribution ['uniform'] is not supported": {"parameters": {SIZE: {"distribution": ["uniform"], "value": 0}}},
    "e^-10000 is 0": {"parameters": {SIZE: {"distribution": "log_uniform", "min": -10000, "max": 0}}},
    "each trial has a folder of its own": {"parameters": {"model.init_args.out": {"values": ["a", "b"]}}},
    "Option 'siez' is not accepted; did you mean size?": {"parameters": {SIZE.replace("size", "siez"): {"value": 1}}},
    "expected float, got wide": {"parameters": {SIZE: {"values": [1, "wide"]}}},
    "reports no fid; name one of acc_joint, acc": {"metric": {"name": "fid"}},
    "command must run `lcg test` with ${args}": {"command": ["${env}", "python", "${program}", "${args}"]},
    "${envvar:NOWHERE}, which is not set": {"command": ["lcg", "test", "${envvar:NOWHERE}", "${args}"]},
    "no closing quotation": {"command": ["/usr/bin/env", "-S", "lcg 'test", "${args}"]},
    "points; give fewer values": {
        "parameters": {SIZE: {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 1e-300}}
    },
    "nowhere.yaml cannot be read": {"command": ["lcg", "test", "--config=nowhere.yaml", "${args}"]},
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line_before_anything_runs(folder, capsys, text):
    write(folder, **MISTAKES[text])
    assert sweep() == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lcg: error: ")
    assert text in line
    assert not list(folder.glob("out/trial-*"))


def test_a_folder_belongs_to_one_sweep(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out/mine").touch()
    write(folder, parameters={SIZE: {"value": 1}})
    assert sweep() == 2
    assert "out is not empty and holds no sweep" in capsys.readouterr().err
    (folder / "out/mine").unlink()
    assert sweep() == 0
    write(folder, parameters={SIZE: {"value": 2}})
    assert sweep() == 2
    assert "out holds another sweep" in capsys.readouterr().err


def test_a_sweep_survives_a_process_killed_while_it_wrote_the_journal(folder, monkeypatch, capsys):
    """The process is killed in its first write: it leaves the journal's lock behind, and half a line."""
    write(folder, parameters={SIZE: {"values": [1.0, 2.0]}})
    assert sweep() == 0
    dies = "import os, signal, sys; os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
    dies += "from lcg_lightning.sweeps.study import _storage\n_storage('out/study.log').create_new_study([1], 'x' * 99)"
    paths = os.pathsep.join([str(ROOT), str(folder)])
    killed = subprocess.run([sys.executable, "-c", dies], env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert killed.returncode == -signal.SIGKILL
    journal = folder / "out/study.log"
    assert b"x" * 99 in journal.read_bytes()
    journal.write_bytes(journal.read_bytes()[:-20])
    fast = SimpleNamespace(monotonic=lambda: 50 * time.monotonic(), sleep=time.sleep)
    monkeypatch.setattr("optuna.storages.journal._file.time", fast)  # the lock is waited for for 30 s
    before = found(folder)
    for _ in range(3):
        assert sweep() == 0
    assert found(folder) == before
    assert "Best acc" in capsys.readouterr().out


def test_results_of_other_data_and_folders_of_other_trials_are_refused(folder, capsys):
    write(folder, parameters={SIZE: {"values": [1.0]}})
    assert sweep() == 0
    assert main(["sweep", "sweep.yaml", "--out=out", "--storage=sqlite:///study.db"]) == 2
    assert "trial-0 belongs to another sweep" in capsys.readouterr().err
    for path in (folder / "store").iterdir():
        path.unlink()
    exact.write(folder / "store", {"train": 9, "val": 4, "test": 4})
    before = found(folder)
    assert sweep() == 2
    assert "with other data or networks" in capsys.readouterr().err
    assert found(folder) == before
    assert main(["sweep", "sweep.yaml", "--out=new", "--storage=sqlite:///study.db"]) == 0


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_wandb_agent_runs_each_point_in_a_folder_of_its_own(path, tmp_path, monkeypatch):
    from wandb.wandb_agent import Agent

    program = tmp_path / "bin/lcg"  # what the agent starts: it keeps the words that it was given
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\njson.dump(sys.argv[1:], open(os.environ['KEPT'], 'w'))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    given = yaml.safe_load(path.read_text())
    agent = Agent(None, None, sweep_id="s")
    agent._sweep_command = given["command"]
    ends = {
        name: [each.get("values", [each.get("min")])[0], each.get("values", [each.get("max")])[-1]]
        for name, each in given["parameters"].items()
    }
    outs = []
    for run in range(2):
        point = {name: {"value": values[run]} for name, values in ends.items()}
        monkeypatch.setenv("KEPT", str(tmp_path / f"{run}.json"))
        monkeypatch.setenv("WANDB_RUN_ID", "")  # restored at the end; the agent sets it
        agent._command_run({"run_id": f"run{run}", "program": given["program"], "args": point})
        assert agent._run_processes[f"run{run}"].wait() == 0
        words = json.loads((tmp_path / f"{run}.json").read_text())
        monkeypatch.chdir(ROOT)
        config = training.run(words, training.Parsed).config.test
        monkeypatch.chdir(tmp_path)
        outs.append(str(config.model.init_args.out))
        for name, value in point.items():
            assert config[name] == value["value"]
        assert config.trainer.logger.init_args.offline is False
    assert [out.split("/")[-1] for out in outs] == ["run0", "run1"]

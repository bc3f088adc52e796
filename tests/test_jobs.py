"""The benchmark's jobs: what dies or diverges stops nothing else, and what rests on a newer job runs again."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from benchmarks.jobs import Job, is_done, mark, run_all
from lcg_lightning.evaluation import records
from tests.conftest import ROOT
from tests.evaluation import exact

METHOD = """
import os, signal, time
from tests.evaluation.exact import Nudge

class Hostile(Nudge):
    def __init__(self, kind: str = "answers"):
        super().__init__()
        self.kind = kind

    def generate(self, condition, noise):
        open(f"began-{os.getpid()}", "w").close()
        if self.kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.kind == "hangs":
            time.sleep(0.05)
        return super().generate(condition, noise) / (self.kind != "diverges")
"""


@pytest.fixture
def evaluation(tmp_path, monkeypatch):
    """Evaluations of a method that answers, diverges, hangs or takes its process with it, by what it does."""
    exact.write(tmp_path / "store", {"train": 8, "val": 4, "test": 4})
    (tmp_path / "hostile.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    arguments = {
        "task": {"class_path": "Conditional"},
        "method": {"class_path": "hostile.Hostile"},
        "generator": exact.WORLD,
        "features": "none",
    }
    config = {
        "model": {"class_path": "Evaluation", "init_args": arguments},
        "data": {"class_path": "LatentDataModule", "init_args": {"store": "store"}},
        "trainer": {"accelerator": "cpu", "logger": False, "enable_checkpointing": False},
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(config))

    def job(kind, name="", after=()):
        out = tmp_path / "test" / (name or kind)
        options = (f"--model.init_args.method.init_args.kind={kind}", f"--model.init_args.out={out}")
        return Job(name or kind, ("test", "--config=test.yaml", *options), out, after)

    return job


def test_what_dies_or_diverges_stops_only_what_rests_on_it(evaluation, capsys):
    dies, answers, diverges = map(evaluation, ("dies", "answers", "diverges"))
    first, orphan = evaluation("answers", "first", (answers,)), evaluation("answers", "orphan", (dies,))
    blocked = evaluation("answers", "blocked")
    (blocked.out.parent / "blocked.log").mkdir(parents=True)  # no log can be written there
    done = [answers, diverges, first]
    failed = run_all([orphan, blocked, first, dies, answers, diverges], workers=2)
    assert sorted(failed) == ["blocked", "dies", "orphan"]
    said = capsys.readouterr().out
    assert "dies: 0 s. its process died" in said
    assert "orphan: not run" in said
    assert "blocked: 0 s. IsADirectoryError" in said
    assert not orphan.out.exists()
    assert all(map(is_done, done))
    assert records.read(diverges.out / "record.json").failure is not None
    assert mark(first).stat().st_mtime_ns - mark(answers).stat().st_mtime_ns > 0
    before = [mark(job).stat().st_mtime_ns for job in done]
    assert run_all(done, workers=2) == []
    assert [mark(job).stat().st_mtime_ns for job in done] == before


def test_workers_end_with_a_benchmark_that_is_stopped(evaluation, tmp_path):
    script = "import sys\nfrom pathlib import Path\nfrom benchmarks.jobs import Job, run_all\n"
    script += f"if __name__ == '__main__':\n    run_all([Job('x', {evaluation('hangs').argv!r}, Path('x'))], 1)\n"
    (tmp_path / "main.py").write_text(script)
    parent = subprocess.Popen([sys.executable, "main.py"])
    while not (began := list(tmp_path.glob("began-*"))):
        assert parent.poll() is None
        time.sleep(0.05)
    worker = int(began[0].name.split("-")[1])
    assert worker != parent.pid
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(20) == -signal.SIGTERM
    deadline = time.monotonic() + 20
    while _lives(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(process):
    """Whether a process runs; one that nobody waits for stays as a zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_job_runs_again_after_what_it_rests_on(tmp_path):
    store = Job("store", ("a",), tmp_path / "store")
    fit = Job("fit", ("b",), tmp_path / "fit", (store,))
    test = Job("test", ("c",), tmp_path / "test", (store, fit))
    for k, job in enumerate((store, fit, test)):
        job.out.mkdir()
        mark(job).write_text(f"{job.digest()} 1.5")
        os.utime(mark(job), ns=(k, k))
    assert all(map(is_done, (store, fit, test)))
    os.utime(mark(fit), ns=(9, 9))  # trained again
    assert [is_done(job) for job in (store, fit, test)] == [True, True, False]
    os.utime(mark(fit), ns=(1, 1))
    fit.out.rmdir()
    assert [is_done(job) for job in (store, fit, test)] == [True, False, False]

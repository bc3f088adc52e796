"""Two nodes that share a file system, each with one process that torchrun starts, do what one process does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.worlds import World
from lcg_lightning.cli import main
from lcg_lightning.commands import encode as command
from lcg_lightning.data.shards import Shards
from lcg_lightning.data.sources.exact import ExactFaces
from lcg_lightning.evaluation import records, samples
from tests.conftest import ROOT
from tests.data.test_encode import assert_same_store
from tests.evaluation.test_module import same
from tests.models.test_resume import assert_equal

SCRIPT = Path(__file__).with_name("nodes_run.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(*command):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *map(str, command)], env=ENVIRONMENT, **pipes)


def finish(*running):
    """Waits until all end well."""
    for said, process in [(process.communicate(timeout=500)[0], process) for process in running]:
        assert process.returncode == 0, said[-3000:]


def torchrun(*command):
    """Runs a script on two nodes, which are two agents on this machine with one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--master-addr=127.0.0.1", f"--master-port={free.getsockname()[1]}", "--nproc-per-node=1"]
    agent = ["-m", "torch.distributed.run", "--nnodes=2", *place]
    finish(*(start(*agent, f"--node-rank={rank}", *command) for rank in range(2)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    here = World("synthfaces", tmp_path_factory.mktemp("nodes"), {"train": 24, "val": 10, "test": 9}, {"prior": 9})
    assert main(here.faces()[0].argv) == 0
    return here


def encoding(world, out, *more):
    return [*world.store().argv, f"--out={out}", "--batch_size=4", "--accelerator=cpu", *more]


def fitting(world, store, out, *trainer):
    (job,) = world.fits()
    small = ["--model.init_args.hidden=16", "--model.init_args.layers=2", "--data.init_args.batch_size=4"]
    places = [f"--data.init_args.store={store}", f"--trainer.default_root_dir={out}"]
    return [*job.argv, *small, *places, "--trainer.accelerator=cpu", *trainer]


def evaluation(world, store, prior, out, *trainer):
    options = {"prior": prior, "steps": 3}
    few = [f"--data.init_args.store={store}", "--data.init_args.batch_size=3", "--trainer.accelerator=cpu"]
    return [*world.evaluation("", out, "conditional-1", "unguided", 13, options, *few, *trainer).argv]


def stopped(monkeypatch, arguments, step):
    """Encodes in one process, which dies before a step that the last of the work consists of."""
    with monkeypatch.context() as patch:
        patch.setattr(Shards, step, lambda *_: exit(9))
        with pytest.raises(SystemExit):
            main(arguments)


def test_two_nodes_give_the_store_weights_and_figures_of_one_process(world, tmp_path, monkeypatch):
    """They also finish two encodings that were stopped when all rows were done: before the store, and before cleaning.

    Weights are those of two processes on one machine.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    left = {step: tmp_path / step for step in ("publish", "remove")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step, out in left.items():
            stopped(monkeypatch, encoding(world, out), step)
    finally:
        torch.set_num_threads(threads)
    store, prior = two / "store", two / "prior/last.ckpt"
    nodes = ["--trainer.num_nodes=2", "--trainer.strategy=ddp"]
    together = [
        *(encoding(world, out, "--num_nodes=2") for out in (store, *left.values())),
        fitting(world, store, prior.parent, *nodes),
        evaluation(world, store, prior, two / "record", *nodes),
    ]
    torchrun(SCRIPT, json.dumps(together))
    alone = [encoding(world, one / "store"), evaluation(world, store, prior, one / "record")]
    pair = fitting(world, store, one / "prior", "--trainer.devices=2", "--trainer.strategy=ddp")
    finish(start(SCRIPT, json.dumps(alone)), start("-m", "lcg_lightning", *pair))

    for made in (store, *left.values()):
        assert_same_store(one / "store", made)
    assert not list(tmp_path.rglob("*.partial"))
    states = [torch.load(folder / "prior/last.ckpt", weights_only=True)["state_dict"] for folder in (one, two)]
    assert_equal(*states)
    found = [records.read(folder / "record/record.json") for folder in (one, two)]
    same(*(record.metrics for record in found))
    figures = [samples.read(folder / "record" / samples.FILE, found[0]) for folder in (one, two)]
    for name, values in figures[0].items():
        np.testing.assert_allclose(values, figures[1][name], rtol=1e-4, atol=1e-4)


def test_processes_that_were_not_counted_are_refused(world, tmp_path, monkeypatch, capsys):
    """Else each would do the whole work and write over the others' files."""
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    encode_here = encoding(world, tmp_path / "store")
    assert main(encode_here) == 2
    monkeypatch.delenv("WORLD_SIZE")
    assert main(encode_here) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(fitting(world, tmp_path / "store", tmp_path / "prior")) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lcg: error")]
    wrong = "lcg: error: torchrun started 2 processes, but num_nodes x devices is 1 x 1; give the numbers of nodes and"
    assert [line.startswith(wrong) for line in lines] == [True, True]
    assert not (tmp_path / "prior").exists()


def test_only_the_first_process_writes_what_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    command.encode(tmp_path / "store", ExactFaces(train=2, val=1, test=1), {"path": "synthfaces-exact"}, num_nodes=2)
    assert not (tmp_path / "store").exists()
    monkeypatch.setenv("RANK", "0")
    command.encode(tmp_path / "store", ExactFaces(train=2, val=1, test=1), {"path": "synthfaces-exact"}, num_nodes=2)
    assert (tmp_path / "store/store.json").exists()

"""Interrupted runs end as uninterrupted ones do; two processes agree. As a script, it is one of the two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.conditional import ConditionalPrior
from lcg_lightning.models.prior import LatentPrior
from tests import toy_latents
from tests.toy_latents import SCHEMA, D, trainer

KINDS = ("prior", "classifier", "conditional")


def module(kind):
    torch.manual_seed(0)
    common = {"hidden": 16, "layers": 3, "warmup_steps": 5, "decay_steps": 40, "lr": 1e-2}
    if kind == "prior":
        return LatentPrior(D, **common)
    labelled = {"classifier": LatentClassifier, "conditional": ConditionalPrior}[kind]
    return labelled(D, SCHEMA.to_json(), **common)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return toy_latents.write(tmp_path_factory.mktemp("resume") / "store", 600)


def fit(kind, store, folder, epochs, ckpt=None):
    data = LatentDataModule(store, batch_size=64)
    model = module(kind)
    saving = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    trainer(epochs, enable_checkpointing=True, callbacks=[saving]).fit(model, data, ckpt_path=ckpt)
    return model, saving.best_model_path


def assert_equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for k in a:
            assert_equal(a[k], b[k])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("kind", KINDS)
def test_two_and_two_epochs_are_four(kind, store, tmp_path):
    whole, _ = fit(kind, store, tmp_path / "whole", 4)
    fit(kind, store, tmp_path / "parts", 2)
    torch.manual_seed(99)  # a new process has another random state
    resumed, _ = fit(kind, store, tmp_path / "parts", 4, tmp_path / "parts/epoch=1.ckpt")
    assert_equal(whole.state_dict(), resumed.state_dict())
    ends = [torch.load(tmp_path / p / "epoch=3.ckpt", weights_only=True) for p in ("whole", "parts")]
    for part in ("optimizer_states", "lr_schedulers"):
        assert_equal(ends[0][part], ends[1][part])

    loaded = type(whole).load_from_checkpoint(tmp_path / "whole/epoch=3.ckpt", weights_only=True)
    assert dict(loaded.hparams) == dict(whole.hparams)
    z, t = torch.randn(3, D), torch.tensor([0, 500, 999])
    assert torch.equal(loaded(z, t), whole(z, t))
    averaged, last = loaded.ema.parameters(), loaded.net.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(averaged, last, strict=True))


def run_two_processes(store, out):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(store), str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_agree_with_each_other_and_with_one(store, tmp_path):
    ranks = run_two_processes(store, tmp_path)
    assert_equal(ranks[0]["states"], ranks[1]["states"])
    for kind in KINDS:
        model = module(kind)
        start = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(ranks[0]["states"][kind])
        assert all(not torch.equal(p, start[k]) for k, p in model.named_parameters())
        (report,) = trainer().test(model, LatentDataModule(store), verbose=False)
        for rank in ranks:
            assert rank["reports"][kind] == pytest.approx(report, rel=1e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {"states": {}, "reports": {}}
    for kind in KINDS:
        model, data = module(kind), LatentDataModule(sys.argv[1], batch_size=64)
        run = trainer(1, devices=2, strategy="ddp")
        run.fit(model, data)
        results["states"][kind] = model.state_dict()
        (results["reports"][kind],) = run.test(model, data, verbose=False)
    torch.save(results, Path(sys.argv[2]) / f"{run.global_rank}.pt")
    run.strategy.barrier()

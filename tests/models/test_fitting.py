"""What every ``lcg fit`` does: resume bit for bit, keep the last state whole, stop at a number that is not finite."""

import json
import sys
from pathlib import Path

import pytest
import torch

from lcg_lightning.cli import main
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.models.load import load_prior
from lcg_lightning.models.prior import LatentPrior
from tests import toy_latents
from tests.conftest import ROOT
from tests.models.test_resume import assert_equal
from tests.test_files import full_disk

SMALL = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return toy_latents.write(tmp_path_factory.mktemp("fitting") / "store", 200)


@pytest.fixture
def fit(store):
    """Runs ``lcg fit`` on a debug configuration, made smaller, into a folder; returns the exit status."""

    def run(kind, folder, *options):
        config = ROOT / "configs/debug" / f"{kind or 'prior'}.yaml"
        places = [f"--data.init_args.store={store}", f"--trainer.default_root_dir={folder}"]
        small = [*SMALL, *(["--model.init_args.hidden=8"] if kind else [])]
        return main(["fit", f"--config={config}", *places, *small, *options])

    return run


def refused(capsys, status):
    """The one line of a command that failed."""
    assert status == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lcg: error: ")]
    assert len(lines) == 1
    return lines[0]


def read(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("kind", ["prior", "classifier", "conditional"])
def test_a_resumed_fit_ends_as_an_uninterrupted_one(kind, fit, tmp_path, capsys):
    assert fit(kind, tmp_path / "whole", "--trainer.max_epochs=4") == 0
    parts = tmp_path / "parts"
    assert fit(kind, parts, "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=3") == 0
    assert read(parts / "last.ckpt")["epoch"] == 2
    torch.manual_seed(99)
    capsys.readouterr()
    assert fit(kind, parts, "--trainer.max_epochs=4", f"--ckpt_path={parts / 'last.ckpt'}") == 0
    assert f"wrote {parts / 'last.ckpt'}" in capsys.readouterr().out
    whole, resumed = read(tmp_path / "whole/last.ckpt"), read(parts / "last.ckpt")
    assert resumed["global_step"] == 4 * (200 // 32)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "hyper_parameters"):
        assert_equal(whole[part], resumed[part])


@pytest.mark.parametrize("kind", ["prior", "classifier"])
@pytest.mark.parametrize("every", [1, 10])
def test_a_fit_resumes_within_an_epoch(kind, every, fit, tmp_path, recwarn):
    options = (f"--trainer.check_val_every_n_epoch={every}", "--trainer.max_steps")
    assert fit(kind, tmp_path / "whole", *options, "15") == 0
    parts = tmp_path / "parts"
    assert fit(kind, parts, *options, "8") == 0  # two of the second epoch's six batches
    assert fit(kind, parts, *options, "10", f"--ckpt_path={parts / 'last.ckpt'}") == 0
    assert fit(kind, parts, *options, "15", f"--ckpt_path={parts / 'last.ckpt'}") == 0
    whole, resumed = read(tmp_path / "whole/last.ckpt"), read(parts / "last.ckpt")
    assert resumed["global_step"] == 15
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_equal(whole[part], resumed[part])
    assert not [w for w in recwarn if "not resumable" in str(w.message)]


def test_a_fit_with_nothing_left_to_do_says_so(fit, tmp_path, capsys):
    assert fit("prior", tmp_path, "--trainer.max_epochs=1") == 0
    before = (tmp_path / "last.ckpt").read_bytes()
    capsys.readouterr()
    assert fit("prior", tmp_path, "--trainer.max_epochs=1", f"--ckpt_path={tmp_path / 'last.ckpt'}") == 0
    assert "nothing to train: 1 epochs and 6 steps are done; raise" in capsys.readouterr().out
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_a_file_of_the_first_layout_resumes(fit, tmp_path):
    """Its class had another path, its statistics another name, and its arguments hold the classifier's attributes."""
    old = Path(__file__).with_name("old_prior.ckpt")
    small = ("--trainer.max_epochs=4", "--model.init_args.time_hidden=4")
    assert fit("prior", tmp_path / "whole", *small) == 0
    assert fit("prior", tmp_path / "resumed", *small, f"--ckpt_path={old}") == 0
    whole, resumed = (read(tmp_path / name / "last.ckpt") for name in ("whole", "resumed"))
    assert resumed["global_step"] == whole["global_step"] == 2 * read(old)["global_step"]
    for key, value in whole["state_dict"].items():  # bit for bit on the machine that made the file
        torch.testing.assert_close(resumed["state_dict"][key], value, rtol=1e-4, atol=1e-5)


def test_only_a_whole_file_of_the_same_module_is_resumed(fit, store, tmp_path, capsys):
    assert fit("prior", tmp_path / "prior", "--trainer.max_epochs=1") == 0
    good = tmp_path / "prior/last.ckpt"
    checkpoint = read(good)
    files = {
        "cut": good.read_bytes()[:-3000],
        "text": b"not a checkpoint",
        "empty": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"model": torch.zeros(3)}, tmp_path / "foreign")
    torch.save({"state_dict": checkpoint["state_dict"]}, tmp_path / "weights")
    torch.save(checkpoint | {"statistics": "none"}, tmp_path / "odd")
    with pytest.raises(UserError, match=r"odd: not a LatentPrior checkpoint \(UserError: the statistics"):
        load_prior(tmp_path / "odd", LatentStore.open(store))
    checkpoint["state_dict"]["net.output.bias"][0] = torch.nan
    torch.save(checkpoint, tmp_path / "nan")
    capsys.readouterr()
    for kind, name, message in [
        ("classifier", "prior/last.ckpt", "lacks ema.gain"),
        ("prior", "cut", "damaged"),
        ("prior", "text", "damaged"),
        ("prior", "empty", "a damaged checkpoint (EOFError)"),
        ("prior", "odd", "the statistics of the checkpoint are not a mean and a standard deviation"),
        ("prior", "foreign", "holds no module"),
        ("prior", "weights", "holds weights but no"),
        ("prior", "nan", "net.output.bias of its LatentPrior is not finite"),
        ("prior", "nowhere", "is not a file"),
    ]:
        line = refused(capsys, fit(kind, tmp_path / "new", f"--ckpt_path={tmp_path / name}"))
        assert message in line
        assert str(tmp_path / name) in line
    assert not (tmp_path / "new/last.ckpt").exists()


def test_another_fit_does_not_overwrite_the_last_state(fit, tmp_path, capsys, monkeypatch):
    assert fit("prior", tmp_path / "a", "--trainer.max_epochs=1") == 0
    assert fit("prior", tmp_path / "b", "--trainer.max_epochs=1") == 0
    before = (tmp_path / "a/last.ckpt").read_bytes()
    monkeypatch.setattr(LatentPrior, "__init__", None)  # nothing is even built
    for more in ([], [f"--ckpt_path={tmp_path / 'b/last.ckpt'}"]):
        assert "is the last state of another fit" in refused(capsys, fit("prior", tmp_path / "a", *more))
    assert (tmp_path / "a/last.ckpt").read_bytes() == before
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in refused(capsys, fit("prior", tmp_path / "file"))


@pytest.mark.parametrize("epochs", [5, 15])
def test_the_last_state_is_kept_whenever_training_ends(epochs, fit, tmp_path):
    options = (f"--trainer.max_epochs={epochs}", "--trainer.check_val_every_n_epoch=10")
    assert fit("prior", tmp_path, *options) == 0
    assert read(tmp_path / "last.ckpt")["global_step"] == epochs * (200 // 32)


def test_a_full_disk_leaves_the_former_state(fit, tmp_path, capsys):
    assert fit("prior", tmp_path, "--trainer.max_epochs=1") == 0
    before = (tmp_path / "last.ckpt").read_bytes()

    last = f"--ckpt_path={tmp_path / 'last.ckpt'}"
    with full_disk(len(before) // 2):
        status = fit("prior", tmp_path, "--trainer.max_epochs=2", last)
    assert "last.ckpt cannot be written (" in refused(capsys, status)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_lightnings_own_checkpoints_work_beside_it(fit, tmp_path):
    saving = json.dumps(
        {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(tmp_path), "filename": "{epoch}"}}
    )
    assert fit("prior", tmp_path, "--trainer.max_epochs=2", f"--trainer.callbacks=[{saving}]") == 0
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "epoch=1.ckpt"}
    again = f"--ckpt_path={tmp_path / 'epoch=1.ckpt'}"
    assert fit("prior", tmp_path, "--trainer.max_epochs=3", again) == 0
    assert read(tmp_path / "last.ckpt")["epoch"] == 2


DIVERGING = """
import torch

from lcg_lightning.models.prior import LatentPrior


class Diverging(LatentPrior):
    def __init__(self, latent_dim: int, where: str = "loss", **options) -> None:
        super().__init__(latent_dim, hidden=8, layers=2, time_hidden=4)
        self.where = where

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * torch.nan if self.where == "loss" and self.global_step == 2 else loss

    def on_before_optimizer_step(self, optimizer):
        if self.where == "gradient" and self.global_step == 2:
            self.net.output.bias.grad[0] = torch.inf

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        if self.where == "weight" and self.global_step == 2:  # the third
            self.net.output.bias.data[0] = torch.nan
"""


@pytest.mark.parametrize("where", ["loss", "gradient", "weight"])
def test_a_number_that_is_not_finite_ends_training_with_its_step(where, fit, tmp_path, capsys, monkeypatch):
    (tmp_path / "diverging.py").write_text(DIVERGING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "diverging", raising=False)
    saving = json.dumps({"class_path": "ModelCheckpoint", "init_args": {"dirpath": "own", "every_n_train_steps": 3}})
    model = ["--model=diverging.Diverging", f"--model.init_args.where={where}"]
    line = refused(capsys, fit(None, tmp_path, *model, f"--trainer.callbacks=[{saving}]"))
    assert "not finite at step 3;" in line
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_a_resumed_fit_keeps_its_arguments_and_its_store(fit, tmp_path, capsys):
    assert fit("prior", tmp_path, "--trainer.max_epochs=1") == 0
    last = f"--ckpt_path={tmp_path / 'last.ckpt'}"
    for argument in ("lr=0.1", "schedule=cosine", "seed=3"):
        line = refused(capsys, fit("prior", tmp_path, last, f"--model.init_args.{argument}"))
        assert f"but {argument.replace('=', ' is ')} here" in line
    other = toy_latents.write(tmp_path / "store", 100)
    line = refused(capsys, fit("prior", tmp_path, last, f"--data.init_args.store={other}"))
    assert "other statistics" in line
    assert fit("prior", tmp_path, last, "--trainer.max_epochs=2", "--model.init_args.decay_steps=50") == 0

"""Mistakes on the command line: each is one line that ends in the innermost reason, and exit status 2."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lcg_lightning import cli
from lcg_lightning.cli import main

FIT = ["fit", "--config=fit.yaml", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))


@pytest.fixture
def folder(small_fit):
    """A small fit, among files that are no configurations."""
    (small_fit / "broken.yaml").write_text("a: [1, 2\nb: }\n")
    (small_fit / "list.yaml").write_text("[1, 2]\n")
    (small_fit / "twice.yaml").write_text("model: {class_path: LatentPrior}\ntrainer:\n  devices: 1\n  devices: 2\n")
    (small_fit / "odd.yaml").write_text("trainer: {devicez: 1}\n")
    (small_fit / "bomb.yaml").write_text(BOMB)
    (small_fit / "deep.yaml").write_text("[" * 100_000)
    os.mkfifo(small_fit / "fifo")
    return small_fit


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--model.init_args.hiden", "3"], "model (LatentPrior): Option 'hiden' is not accepted; did you mean hidden?"),
        (["--model.init_args.hidden=x"], "model.hidden (LatentPrior): expected int, got x"),
        (["--model.init_args.schedule=x"], "expected one of 'linear', 'cosine', 'constant', got x"),
        (["--model=LatentPrio"], "model: no class is called LatentPrio; did you mean LatentPrior?"),
        (["--trainer.max_stepz", "5"], "--trainer.max_stepz 5; did you mean trainer.max_steps? (lcg fit --help"),
        (["--config=odd.yaml"], "does not accept option 'trainer.devicez'; did you mean trainer.devices? (lcg fit"),
        (["--trainer.max_epochs=x"], "trainer.max_epochs: expected int, got x"),
        (["--trainer.max_epochs=-3"], "`max_epochs` must be a non-negative integer or -1. You passed in -3."),
        (["--trainer.devices=0"], "`Trainer(devices='0')` value is not a valid input"),
        (["--trainer.accelerator=tpu"], "Requirement 'torch_xla"),
        (["--trainer.accelerator=none"], "You selected an invalid accelerator name"),
        (["--trainer.precision=7"], "trainer.precision: expected one of 64, 32, 16 or"),
        (["--trainer.callbacks=5"], "trainer.callbacks: no class is called 5"),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches is 0; it must be at least 1"),
        (["--trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch is 0; it must be at least 1"),
        (["--trainer.val_check_interval=100"], "`val_check_interval` (100) must be less than or equal to"),
        (["--ckpt_path=nowhere.ckpt"], "ckpt_path: nowhere.ckpt is not a file"),
        (["--config=nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--config=broken.yaml"], "broken.yaml, line 2: not YAML"),
        (["--config=twice.yaml"], "twice.yaml, line 4: not YAML (the key devices is given twice)"),
        (["--trainer.callbacks={class_path: Timer, class_path: Timer}"], "trainer.callbacks: "),
        (["--config=list.yaml"], "list.yaml holds no keys and values"),
        (["--config=bomb.yaml"], "bomb.yaml cannot be used (its aliases stand for more than"),
        (["--config=deep.yaml"], "deep.yaml cannot be used (it is nested more than 30 levels deep)"),
        (["--config=store"], "store is a folder; give a text file"),
        (["--config=fifo"], "fifo is not a regular file; give a text file"),
        (["--data=bomb.yaml"], "data: "),
        (["--model=fifo"], "--model: fifo is a pipe or a device; give a regular file"),
        (["--trainer.callbacks", "/dev/zero"], "--trainer.callbacks: /dev/zero is a pipe or a device"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_a_mistake_is_one_short_line(arguments, line, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main([*FIT, *arguments]) == 2
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert told.startswith("lcg: error: ")
    assert line in told
    assert len(told) < 500


@pytest.mark.parametrize("command", ["test", "validate"])
def test_only_trained_weights_are_measured(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main([command, "--config=fit.yaml"]) == 2
    assert "LatentPrior has no trained weights; give --ckpt_path=FILE" in capsys.readouterr().err
    assert main(["fit", "--config=fit.yaml", "--trainer.logger=false"]) == 0
    assert main(["validate", "--config=fit.yaml", "--trainer.logger=false", "--ckpt_path=last.ckpt"]) == 0


def test_a_method_file_with_a_mistake_is_named(tmp_path, monkeypatch, capsys):
    """The parser reports a loop there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text("class_path: Retrieval\ninit_args: {nothing: 3}\n")
    assert main(["sample", "Smiling", "store", "out", "--method=m.yaml"]) == 2
    assert "method: m.yaml does not fit; give class_path and init_args" in capsys.readouterr().err


def test_a_wrong_type_names_the_option(capsys):
    assert main(["render", "out", "--train=x"]) == 2
    assert "train: expected int, got x (lcg render --help" in capsys.readouterr().err


def test_tracebacks_are_kept_on_demand_and_for_errors_of_our_own(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LCG_TRACEBACK", "1")
    with pytest.raises(Exception, match="hiden"):
        main([*FIT, "--model.init_args.hiden=3"])
    monkeypatch.delenv("LCG_TRACEBACK")

    def wrong(args):
        raise ValueError("ours")

    monkeypatch.setattr(cli, "run", wrong)
    with pytest.raises(ValueError, match="ours"):
        main(FIT)
    assert not capsys.readouterr().err


def test_ctrl_c_ends_a_fit_with_one_line_and_130(folder):
    fit = [sys.executable, "-m", "lcg_lightning", *FIT, "--trainer.max_epochs=100000"]
    process = subprocess.Popen(
        [*fit, "--model.init_args.seed=3", "--trainer.callbacks=beat.Beat"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )
    beat = folder / "beat"
    (folder / "beat.py").write_text(
        "from pathlib import Path\nfrom lightning import Callback\n\n"
        "class Beat(Callback):\n    def on_train_epoch_end(self, *_):\n        Path('beat').touch()\n"
    )
    while not beat.exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.strip() == "lcg: interrupted"

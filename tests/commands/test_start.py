"""Starting ``lcg``: what a command imports, and what it says before anything is computed."""

import subprocess
import sys

import pytest

from lcg_lightning.cli import COMMANDS, TRAINER_COMMANDS, usage
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.estimates import Estimate
from tests.evaluation.test_leaderboard import record

HEAVY = {"torch", "lightning", "torchmetrics", "cleanfid", "matplotlib", "scipy", "torchvision", "wandb", "numpy"}


def start(arguments, cwd, code=0):
    """Runs a command in a process of its own; what it printed, and the heavy libraries that it imported."""
    script = (
        "import sys; from lcg_lightning.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        f"print('imported:', *sorted({HEAVY!r} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == code, done.stderr
    *shown, imported = done.stdout.splitlines()
    return "\n".join([*shown, done.stderr.strip()]), set(imported.split()[1:])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, usage()),
        ([], 0, usage()),
        (["--version"], 0, "lcg-lightning "),
        (["smaple", "Hat", "--help"], 2, "no command 'smaple'; did you mean sample?"),
        (["generator"], 0, usage("generator")),
        (["generator", "inof", "x"], 2, "no command 'generator inof'; did you mean generator info?"),
        (["qqq"], 2, "no command 'qqq'; lcg --help lists them"),
    ],
)
def test_an_answer_that_needs_no_library_imports_none(arguments, code, text, tmp_path):
    shown, imported = start(arguments, tmp_path, code)
    assert text in shown
    assert not imported


def test_help_lists_every_command():
    for name in [*COMMANDS, *TRAINER_COMMANDS]:
        assert f"\n  {name} " in usage()


def test_a_reader_that_has_seen_enough_ends_the_output(tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m lcg_lightning --help | true"], capture_output=True, text=True, cwd=tmp_path
    )
    assert not done.stderr


OUT = ["render {out} --train 3", "render --seed=1 {out}", "sample Hat store --method.scale 2 {out} --n=2"]
OUT += ["edit [Hat] store {out}", "encode --out {out} --data Sampled", "encode --config=encode.yaml"]
OUT += ["test --model.init_args.out={out}", "test --config test.yaml"]


@pytest.mark.parametrize("command", OUT)
def test_a_taken_folder_is_refused_before_libraries_are_imported(command, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("keep")
    (tmp_path / "encode.yaml").write_text("out: taken\n")
    (tmp_path / "test.yaml").write_text("model: {class_path: Evaluation, init_args: {out: taken}}\n")
    shown, imported = start(command.format(out="taken").split(), tmp_path, 2)
    assert shown.strip() == "lcg: error: taken exists and is not empty; name another output folder or remove it"
    assert not imported
    assert (tmp_path / "taken/mine").read_text() == "keep"


@pytest.mark.parametrize(
    ("command", "text", "used"),
    [
        ("render out --train=3 --val=0 --test=1", "Rendering", {"torch", "numpy"}),
        ("generator info synthfaces", "StyleGAN2Generator", {"torch", "numpy"}),
    ],
)
def test_a_small_command_imports_only_what_it_uses(command, text, used, tmp_path):
    shown, imported = start(command.split(), tmp_path)
    assert text in shown
    assert imported <= used


def test_a_leaderboard_without_figures_imports_no_heavy_library(tmp_path):
    _, imported = start(["leaderboard", "."], tmp_path, 2)
    assert not imported
    records.write(record(task="conditional-1", metrics={"acc_joint": Estimate(0.5, 0.4, 0.6)}), tmp_path / "a.json")
    shown, imported = start(["leaderboard", "."], tmp_path)
    assert "0.500" in shown
    assert not imported


def test_open_shows_the_page_in_the_browser(tmp_path, monkeypatch):
    records.write(record(task="conditional-1", metrics={"acc_joint": Estimate(0.5, 0.4, 0.6)}), tmp_path / "a.json")
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho $1 > seen\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("BROWSER", str(browser))
    assert "No browser" not in start(["leaderboard", ".", "--open=true"], tmp_path)[0]
    assert (tmp_path / "seen").read_text().strip() == (tmp_path / "leaderboard.html").as_uri()
    monkeypatch.setenv("BROWSER", "nowhere")
    shown, _ = start(["leaderboard", ".", "--open=true"], tmp_path)
    assert "No browser was found; open leaderboard.html in one." in shown


def test_help_of_fit_begins_with_what_can_be_named(tmp_path):
    shown, _ = start(["fit", "--help"], tmp_path)
    begin = shown[: shown.index("options:")]
    assert begin.startswith("usage: lcg fit --config FILE")
    assert "lcg fit --model.help LatentPrior" in begin
    for name in [
        "LatentPrior",
        "LatentClassifier",
        "Evaluation",
        "LatentDataModule",
        "Editing",
        "LatentArithmetic",
        "Retrieval",
    ]:
        assert f"\n  {name} " in begin


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    shown, imported = start(["render", "file/out"], tmp_path, 2)
    assert "file/out cannot be written" in shown
    assert not imported

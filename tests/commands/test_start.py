"""Starting ``lcg``: what a command imports, and what it says before anything is computed."""

import subprocess
import sys

import pytest

from lcg_lightning.cli import COMMANDS, TRAINER_COMMANDS, usage

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

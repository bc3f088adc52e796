"""What a run shows: progress, our lines and real warnings, once, and nothing else."""

import re
import subprocess
import sys

import pytest

MINE = """
import warnings

from lcg_lightning.errors import UserError
from lcg_lightning.models.prior import LatentPrior


class Mine(LatentPrior):
    def on_fit_start(self):
        warnings.warn("mine, and real", stacklevel=1)

    def on_fit_end(self):
        raise UserError("mine, and wrong")
"""
PROGRESS = re.compile(r"Epoch \d+/\d+ |(val|train)/\w+: [\d.]+|.*\.ckpt\b|")


def lcg(folder, *arguments):
    """Runs what an installed ``lcg`` is: a script elsewhere, so that Python itself leaves the current directory out."""
    script = folder / "bin/lcg"
    script.parent.mkdir()
    script.write_text("import sys\nfrom lcg_lightning.cli import main\nsys.exit(main())\n")
    return subprocess.run([sys.executable, script, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fit_shows_progress_warnings_and_errors_once_and_nothing_else(processes, small_fit):
    (small_fit / "mine.py").write_text(MINE)
    (small_fit / "made").mkdir()
    (small_fit / "made/before").touch()
    callback = ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.dirpath=made"]
    several = ["--trainer.devices=2", "--trainer.strategy=ddp"] if processes == 2 else []
    done = lcg(small_fit, "fit", "--config=fit.yaml", "--model=mine.Mine", *callback, *several)
    warning, _, *more = done.stderr.strip().splitlines()
    assert warning.endswith("UserWarning: mine, and real")
    assert more == ["lcg: error: mine, and wrong"]
    assert done.returncode == 2
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in lines if not PROGRESS.match(line)] == []
    assert any(line.startswith("Epoch 0/0 ") for line in lines)

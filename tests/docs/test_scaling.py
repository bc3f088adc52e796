"""docs/scaling.md: its commands are read, its processes add up, and its table follows from its formula."""

import re
import shlex

import pytest

from lcg_lightning.cli import main
from lcg_lightning.commands.training import Parsed, run
from lcg_lightning.models.prior import LatentPrior
from tests.conftest import ROOT

PAGE = (ROOT / "docs/scaling.md").read_text()
BLOCKS = re.findall(r"```(?:sh|bash)\n(.*?)```", PAGE, flags=re.DOTALL)


def commands(block):
    """Words of each command, of which a launcher may be the first."""
    lines = block.replace("\\\n", " ").replace("'", " ").splitlines()
    return [shlex.split(re.sub(r"\$\(.*?\)", "", line)) for line in lines if re.search(r"\blcg(_lightning)? \w", line)]


def test_commands_are_read_and_count_the_processes_that_are_started(tmp_path, monkeypatch):
    for folder in ("configs", "benchmarks"):  # and no runs: a fit refuses a folder with another one's last state
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    seen = []
    for block in BLOCKS:
        asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", block))
        for words in commands(block):
            first = next(i for i, word in enumerate(words) if word in ("lcg", "lcg_lightning"))
            launcher, (name, *arguments) = words[:first], words[first + 1 :]
            options = dict(zip(arguments[::2], arguments[1::2], strict=True))
            prefix = "--" if name == "encode" else "--trainer."
            counted = [int(options.get(f"{prefix}{key}", 1)) for key in ("num_nodes", "devices")]
            if "torchrun" in launcher:
                started = [int(launcher[launcher.index(f"--{key}") + 1]) for key in ("nnodes", "nproc-per-node")]
            else:
                started = [int(asked.get("nodes", 1)), int(asked.get("ntasks-per-node", 4))]
            assert counted == started == [int(asked.get("nodes", counted[0])), int(asked.get("gpus-per-node", 4))]
            seen.append(name)
            if name == "encode":
                with pytest.raises(SystemExit, match="0"):
                    main([name, *arguments, "--print_config"])
            else:
                run([name, *arguments], Parsed)
    assert seen == ["encode", "fit", "test", "encode", "fit", "fit", "encode"]


def test_the_table_follows_from_the_formula():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {}
    exec(code, names)
    network = LatentPrior(512, hidden=2048, layers=10).net
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(names["PARAMETERS"], rel=2e-3)
    cells = r"^\| [^|]+ \| (\w+) \| ([\d.]+) GB/s \| (\d+) \| (\d+) \| ([\d.]+) ms \| ([\d.]+) \|$"
    rows = re.findall(cells, PAGE, flags=re.MULTILINE)
    assert len(rows) > 8
    for device, link, count, batch, milliseconds, gain in rows:
        setting = int(count), int(batch), 1e9 * float(link), names[device]
        assert 1e3 * names["step"](*setting) == pytest.approx(float(milliseconds), rel=0.02)
        assert names["gain"](*setting) == pytest.approx(float(gain), rel=0.03, abs=0.05)

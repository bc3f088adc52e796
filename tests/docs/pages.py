"""Code blocks of the pages, run as a reader runs them."""

import re
import subprocess
from pathlib import Path

from lcg_lightning.cli import main
from tests.conftest import ROOT

SMALL = {
    "render": ["--train=300", "--val=31", "--test=31"],
    "fit": ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.accelerator=cpu"],
    "test": ["--trainer.accelerator=cpu", "--model.init_args.n=16"],
    "sweep": ["--trials=1"],
}
"""What tests add to commands: sizes."""
SHELL = f"""
lcg() {{ printf '%s\\0' "$@"; printf '\\n\\0'; }}
make() {{ grep -q "^$1:" {ROOT}/Makefile; }}
source() {{ test "$*" = .venv/bin/activate; }}
wandb() {{ test "$1" = sweep -a -f "$2"; }}
"""
"""Commands that pages give: ``lcg`` tells its words, ``make`` needs such a target, ``wandb`` such a file."""


def section(page, title):
    """The text below a heading of the second level."""
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(text):
    """Language and code of each fenced block."""
    return re.findall(r"^ *```(\w+)\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)


def files(text):
    """Content of each file of a page, which its name stands above."""
    return dict(re.findall(r"^`([\w-]+\.\w+)`\n\n```\w+\n(.*?)```$", text, flags=re.MULTILINE | re.DOTALL))


def commands(text):
    """The words of each ``lcg`` command in shell blocks, as bash expands them."""
    script = SHELL + "".join(code for language, code in blocks(text) if language == "sh")
    told = subprocess.run(["bash", "-euc", script], capture_output=True, check=True)
    return [command.split("\0") for command in told.stdout.decode().split("\0\n\0")[:-1]]


def follow(text, small=SMALL):
    """Writes a text's files into the current directory, and runs its ``lcg`` commands in this process."""
    for name, content in files(text).items():
        Path(name).write_text(content)
    for words in commands(text):
        assert main([*words, *small.get(words[0], [])]) == 0, words

"""The command ``lcg``: imports only the requested command, runs it, and reports user errors in one line."""

import contextlib
import difflib
import importlib
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from lcg_lightning.commands import preflight
from lcg_lightning.commands.mistakes import explain
from lcg_lightning.commands.quiet import quiet
from lcg_lightning.errors import UserError
from lcg_lightning.processes import is_first


class Command(NamedTuple):
    """A command: a function whose arguments are the options; it is imported when the command runs."""

    module: str
    function: str
    help: str
    out: int | str = ""
    """The output folder's position among the positional arguments, or the name of its option."""
    positional: bool = True
    """Whether arguments without a default are given by position."""


_HERE = "lcg_lightning.commands"
COMMANDS = {
    "render": Command(f"{_HERE}.render", "render", "Render SynthFaces in the layout of CelebA-HQ.", 0),
    "generator info": Command(f"{_HERE}.generator", "info", "Say what a generator is and what it can do."),
    "generator convert": Command(f"{_HERE}.generator", "convert", "Write the generator of a file as safetensors."),
    "encode": Command(f"{_HERE}.encode", "encode", "Encode a data set into a latent store.", "out", positional=False),
    "sample": Command(f"{_HERE}.sample", "sample", "Sample images that satisfy a condition.", 2),
    "edit": Command(f"{_HERE}.edit", "edit", "Edit images, or latents of a store, by one condition after another.", 2),
    "leaderboard": Command(f"{_HERE}.leaderboard", "leaderboard", "Write tables and figures from records."),
    "studio": Command(f"{_HERE}.studio", "studio", "Edit faces, sample and compare in the browser."),
    "sweep": Command(f"{_HERE}.sweep", "sweep", "Search an evaluation's options, as a W&B sweep file asks."),
    "export-zoo": Command(f"{_HERE}.export_zoo", "export_zoo", "Write the zoo's weights and cards."),
}
TRAINER_COMMANDS = {
    "fit": "Train the module of a configuration.",
    "validate": "Run a module's validation.",
    "test": "Evaluate a method on a task, or test a prior or classifier.",
}
_GROUPS = {name.split()[0] for name in COMMANDS if " " in name}


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command.

    A user error prints one line to standard error and exits with status 2; Ctrl-C prints one line and exits with 130.
    LCG_TRACEBACK=1 shows tracebacks. YAML can name classes from modules in the current directory.
    """
    given = list(sys.argv[1:] if args is None else args) or ["--help"]
    name, rest = _split(given)
    with contextlib.suppress(FileNotFoundError):  # a folder that is gone holds no classes
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    try:
        if name in TRAINER_COMMANDS:
            preflight.check(rest, "model.init_args.out")
            run(given)
        elif name in COMMANDS:
            _call(name, rest)
        elif name in ("-h", "--help"):
            print(usage())
        elif name == "--version":
            print(f"lcg-lightning {version('lcg-lightning')} (torch {version('torch')})")
        elif name in _GROUPS and rest[:1] in ([], ["-h"], ["--help"]):
            print(usage(name))
        else:
            raise UserError(_unknown(given))
    except BrokenPipeError:  # as in "lcg ... | head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):  # Lightning exits this way after an interruption
            raise
        return _interrupted()
    except Exception as error:
        line = None if os.environ.get("LCG_TRACEBACK") else explain(error, name)
        if line is None:
            raise
        if not _told_by_the_first():
            print(f"lcg: error: {line}", file=sys.stderr)
        return 2
    return 0


def run(args: Sequence[str]) -> Any:
    """Runs a Lightning command as from the command line; returns its LightningCLI with trainer, model and data."""
    from lcg_lightning.commands import training

    with _calm(fitting=args[:1] == ["fit"]):
        return training.run(args)


def usage(group: str = "") -> str:
    """The help of ``lcg``, or of one group of commands, such as ``lcg generator``."""
    texts = ({} if group else TRAINER_COMMANDS) | {name: command.help for name, command in COMMANDS.items()}
    lines = [f"  {name:<18} {text}" for name, text in texts.items() if name.startswith(group)]
    return "\n".join([f"usage: lcg {group or 'COMMAND'} ...", "", *lines, "", "lcg COMMAND --help tells more."])


def _split(args: list[str]) -> tuple[str, list[str]]:
    """The command's name (one or two words) and its arguments."""
    words = 2 if " ".join(args[:2]) in COMMANDS else 1
    return " ".join(args[:words]), args[words:]


def _call(name: str, args: list[str]) -> None:
    import jsonargparse

    command = COMMANDS[name]
    preflight.check(args, command.out)
    function = getattr(importlib.import_module(command.module), command.function)
    options: dict[str, Any] = {"as_positional": command.positional, "prog": f"lcg {name}", "exit_on_error": False}
    with _calm():
        jsonargparse.auto_cli(function, args=args, **options)


def _calm(fitting: bool = False) -> contextlib.AbstractContextManager[None]:
    """Applies settings to the libraries, which must already be imported; some hold only within the block."""
    quiet()
    preflight.bound_yaml()
    if "torch" not in sys.modules:
        return contextlib.nullcontext()
    from lcg_lightning.commands.products import faster_products

    return faster_products(fitting)


def _unknown(args: list[str]) -> str:
    tried = " ".join(args[: 2 if args[0] in _GROUPS else 1])
    near = difflib.get_close_matches(tried, [*TRAINER_COMMANDS, *COMMANDS, *_GROUPS], n=1)
    return f"no command {tried!r}; " + (f"did you mean {near[0]}?" if near else "lcg --help lists them")


def _told_by_the_first(patience: float = 10.0) -> bool:
    """Whether the first of several processes also ends, and so has already reported the error.

    A process started by Lightning is a child of the first one; it waits ``patience`` seconds for its parent to end.
    torchrun and srun stop the other processes within that time.
    """
    parent, until = os.getppid(), time.monotonic() + patience
    while not is_first() and os.getppid() == parent and time.monotonic() < until:
        time.sleep(0.1)
    return os.getppid() != parent


def _interrupted() -> int:
    if is_first():
        print("lcg: interrupted", file=sys.stderr)
    return 130

"""Checks before a heavy library is imported: configuration files and output folders."""

import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lcg_lightning.data.place import ensure_place
from lcg_lightning.errors import UserError
from lcg_lightning.yaml_files import load_yaml, refuse_traps


def check(args: Sequence[str], out: int | str) -> None:
    """Checks the configuration files in the arguments, and the output folder if the arguments name it.

    Args:
        args: arguments of the command.
        out: the output folder's position among the positional arguments, or the name of its option.

    Raises:
        UserError: a configuration is not a regular file or not YAML, or the output folder exists and is not empty or
            cannot be written.
    """
    positional, options = _split(args)
    if any(name in ("-h", "--help") or name.endswith(".help") or "print_config" in name for name, _ in options):
        return
    found = positional[out] if isinstance(out, int) and out < len(positional) else None
    for name, value in options:
        if name in ("-c", "--config") and not value.lstrip().startswith("{"):
            values = load_yaml(Path(value))
            if not isinstance(values, dict | None):
                raise UserError(f"{value} holds no keys and values; give a configuration")
            found = _nested(values, out) or found
        elif name == f"--{out}":
            found = value
        elif _endless(value):
            raise UserError(f"{name}: {value} is a pipe or a device; give a regular file")
    if isinstance(found, str):
        ensure_place(Path(found))


@cache
def bound_yaml() -> None:
    """Makes jsonargparse refuse what :func:`~lcg_lightning.yaml_files.refuse_traps` refuses, and read None as null.

    It passes null on as ``None`` to an option within an option, such as model.init_args.method.init_args.prior.
    """
    import jsonargparse

    load = jsonargparse.get_loader("yaml")

    def load_bounded(stream: str) -> Any:
        refuse_traps(stream)
        return None if stream.strip() == "None" else load(stream)

    jsonargparse.set_loader("yaml", load_bounded, (yaml.YAMLError,))


def _split(args: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Positional arguments, and options with their values; every option takes one."""
    positional, options, words = [], [], iter(args)
    for word in words:
        if not word.startswith("-"):
            positional.append(word)
        elif "=" in word:
            options.append((word.split("=", 1)[0], word.split("=", 1)[1]))
        else:
            options.append((word, next(words, "")))
    return positional, options


def _endless(value: str) -> bool:
    """Whether a value names something that reading could wait for, or read from, for ever."""
    try:
        mode = os.stat(value).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _nested(values: Any, key: int | str) -> Any:
    for part in str(key).split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values

"""Checks before a heavy library is imported: configuration files and output folders."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lcg_lightning.data.place import ensure_place
from lcg_lightning.errors import UserError
from lcg_lightning.files import read_text

MAX_NODES = 100_000
"""Largest number of values in a YAML file with its aliases expanded."""


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
    if isinstance(found, str):
        ensure_place(Path(found))


def load_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: the file cannot be read, is not YAML, or is too large with its aliases expanded.
    """
    text = read_text(path)
    try:
        refuse_bombs(text)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not YAML ({error.problem}); correct it") from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"{path} cannot be used ({reason}); correct it") from error


@cache
def bound_yaml() -> None:
    """Makes jsonargparse refuse texts and files that are too large with their aliases expanded."""
    import jsonargparse

    load = jsonargparse.get_loader("yaml")

    def load_bounded(stream: str) -> Any:
        refuse_bombs(stream)
        return load(stream)

    jsonargparse.set_loader("yaml", load_bounded, (yaml.YAMLError,))


def refuse_bombs(text: str) -> None:
    """Checks that a YAML text stays small with its aliases expanded.

    Raises:
        yaml.YAMLError: the text is too large or is not YAML.
    """
    if "*" in text and "&" in text:
        _count(yaml.compose(text, Loader=yaml.SafeLoader), {})


def _count(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """Number of nodes in a tree with its aliases expanded."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = MAX_NODES  # placeholder, so that a node that contains itself counts as too many
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        counts[id(node)] = 1 + sum(_count(part, counts) for part in parts)
    if counts[id(node)] > MAX_NODES:
        raise yaml.YAMLError(f"its aliases stand for more than {MAX_NODES} values")
    return counts[id(node)]


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


def _nested(values: Any, key: int | str) -> Any:
    for part in str(key).split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values

"""What is refused before a heavy library is imported: unreadable configurations, output folders that are taken."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lcg_lightning.data.place import ensure_place
from lcg_lightning.errors import UserError
from lcg_lightning.files import read_text

MAX_NODES = 100_000
"""Values that a YAML file may hold once its aliases are written out."""


def check(args: Sequence[str], out: int | str) -> None:
    """Checks the configuration files that are named, and the output folder where it is plain which one is meant.

    Args:
        args: of the command.
        out: the output folder's place among the positional arguments, or the name of its option.

    Raises:
        UserError: a configuration that is no regular file or no YAML, or an output folder that is there and not empty
            or cannot be written.
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
    """What a YAML file holds.

    Raises:
        UserError: it cannot be read, is not YAML, or is too large once its aliases are written out.
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
    """Makes jsonargparse refuse texts and files that are too large once their aliases are written out."""
    import jsonargparse

    load = jsonargparse.get_loader("yaml")

    def load_bounded(stream: str) -> Any:
        refuse_bombs(stream)
        return load(stream)

    jsonargparse.set_loader("yaml", load_bounded, (yaml.YAMLError,))


def refuse_bombs(text: str) -> None:
    """Checks that a YAML text stays small once its aliases are written out.

    Raises:
        yaml.YAMLError: it does not, or it is not YAML.
    """
    if "*" in text and "&" in text:
        _count(yaml.compose(text, Loader=yaml.SafeLoader), {})


def _count(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """Nodes of a tree with its aliases written out."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = MAX_NODES  # until it is known, so that a node inside itself counts as too many
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

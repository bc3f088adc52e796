"""Network descriptions in configurations: a name, a file, a YAML file, or arguments of a class or function."""

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from lcg_lightning.errors import UserError
from lcg_lightning.files import plain
from lcg_lightning.yaml_files import load_yaml

Spec = str | Path | Mapping[str, Any]
"""The name of a zoo network, a file, a YAML file, or the mapping that such a YAML file holds.

The keys are ``path`` and options, or ``class_path`` and ``init_args``. Relative paths start at the current directory.
"""
T = TypeVar("T")
_LONGEST = 200  # most characters quoted from another library's message


def read_spec(spec: Spec) -> tuple[str, dict[str, Any] | None]:
    """A network's name for messages, and its mapping, which is None for a name or a network file.

    Raises:
        UserError: the YAML file cannot be read or holds no mapping, or ``spec`` has another type.
    """
    if isinstance(spec, Mapping):
        if not all(isinstance(key, str) for key in spec):
            raise UserError(f"{dict(spec)} does not describe a network; give keys and values, such as path: FILE")
        return str(spec.get("path", spec.get("class_path", "network"))), dict(spec)
    if not isinstance(spec, str | Path):
        raise UserError(f"{spec!r} does not name a network; give a file, or keys and values, such as path: FILE")
    path = Path(spec)
    if path.suffix not in (".yaml", ".yml"):
        return str(spec), None
    given = load_yaml(path)
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise UserError(f"{path} must hold keys and values: path, size, ...")
    return str(path), given


def plain_spec(spec: Any) -> Any:
    """A network description as JSON values; an object is described by its class."""
    if isinstance(spec, Mapping):
        return {str(key): plain_spec(value) for key, value in spec.items()}
    if isinstance(spec, list | tuple):
        return [plain_spec(value) for value in spec]
    if spec is None or isinstance(spec, str | int | float | Path):
        return plain(spec)
    return {"class_path": f"{type(spec).__module__}.{type(spec).__qualname__}"}


def described(part: Any) -> dict[str, Any]:
    """Class path and arguments of an object that keeps these as ``config``, as in YAML."""
    kind = type(part)
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": part.config}


def call(function: Callable[..., T], given: Mapping[str, Any], where: str) -> T:
    """Calls a function or class with values from YAML, which jsonargparse checks against its signature.

    Args:
        function: the function or class to call.
        given: its arguments.
        where: where the arguments come from, for messages.

    Raises:
        UserError: an unknown, missing or mistyped argument, or an error from the function itself.
    """
    parser = ArgumentParser(exit_on_error=False)
    add: Callable[..., list[str]] = parser.add_function_arguments
    if isinstance(function, type):
        add = parser.add_class_arguments
    known = list(dict.fromkeys(name.split(".")[0] for name in add(function, fail_untyped=False)))
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            hint = f"; did you mean {near[0]}? (known: {', '.join(known)})" if near else ""
            raise UserError(f"{where}: unknown key {key!r}{hint}")
    try:
        checked = parser.instantiate(parser.parse_object(dict(given)))
    except (ArgumentError, TypeError) as error:
        raise UserError(f"{where}: {_reason(str(error), given)}") from None
    try:
        return function(**checked.as_dict())
    except UserError as error:
        raise UserError(str(error) if where in str(error) else f"{where}: {error}") from error


def construct(base: type[T], given: Mapping[str, Any], where: str) -> T:
    """An instance of the subclass of ``base`` that ``class_path`` names.

    Its arguments are given under ``init_args`` or beside ``class_path``.

    Raises:
        UserError: the class does not exist or is not derived from ``base``, or its arguments are wrong.
    """
    rest = dict(given)
    name, arguments = rest.pop("class_path"), rest.pop("init_args", None) or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}: init_args is {arguments!r}; give keys and values")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--kind", type=type[base])
    try:
        kind = parser.parse_object({"kind": name}).kind
    except ArgumentError:
        kind = None
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(f"{where}: {name} cannot be imported ({error}); correct class_path") from error
    if kind is None:
        raise UserError(
            f"{where}: class_path is {name!r}; give the dotted path of a subclass of {base.__module__}.{base.__name__}"
        )
    made: T = call(kind, {**arguments, **rest}, str(name))
    return made


def _reason(text: str, given: Mapping[str, Any]) -> str:
    """A jsonargparse message in one short line."""
    if missing := re.search(r"arguments are required: (.+)", text):
        return f"{missing[1]} is missing"
    key = re.match(r'Parser key "([\w.]+)"', text)
    if not (key and (expected := re.findall(r"(?:Expected(?: an?)?|Not of type) (.+?)(?:[.:] .*)?$", text, re.M))):
        return " ".join(text.split())[:_LONGEST]
    kinds = [re.sub(r"<class '(\w+)'>|typing\.Literal\[(.*)\]", r"\1\2", kind) for kind in dict.fromkeys(expected)]
    return f"{key[1]} is {given.get(key[1])!r}; give {' or '.join(kinds).replace('NoneType', 'null')}"

"""How configurations name networks: by a zoo name, a file, or a description of keys and values."""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from lcg_lightning.errors import UserError

Spec = str | Path | Mapping[str, Any]
"""Name of a network of the zoo, a file, a YAML file, or what such a file holds. Paths start at the current folder."""
T = TypeVar("T")


def read_spec(spec: Spec) -> tuple[str, dict[str, Any] | None]:
    """Where a description stands, and the description; for a name or another file, that and None.

    Raises:
        UserError: a YAML file that cannot be read, or holds no keys and values.
    """
    if isinstance(spec, Mapping):
        if not all(isinstance(key, str) for key in spec):
            raise UserError(f"{dict(spec)} does not describe a network; give keys and values, such as path: FILE")
        return str(spec.get("path", "network")), dict(spec)
    if not isinstance(spec, str | Path):
        raise UserError(f"{spec!r} does not name a network; give a file, or keys and values, such as path: FILE")
    path = Path(spec)
    if path.suffix not in (".yaml", ".yml"):
        return str(spec), None
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the YAML file of a network") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise UserError(f"{path} must hold keys and values: path, size, ...")
    return str(path), given


def build(kind: type[T], given: Any, where: str, also: tuple[str, ...] = ()) -> T:
    """An instance of a dataclass from its fields as YAML gives them."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} is {given!r}; give keys and values")
    known = {f.name: f.default is MISSING for f in fields(kind)}  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), [*known, *also], n=1, cutoff=0.0)[0]
            raise UserError(f"{where}: unknown key {key!r}; did you mean {near}? (known: {', '.join([*also, *known])})")
    if missing := [name for name, required in known.items() if required and name not in given]:
        raise UserError(f"{where}: {missing[0]} is missing")
    try:
        return kind(**given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a value has the wrong type ({error})") from None


def one_of(what: str, value: str, allowed: Any) -> None:
    """Raises a UserError if a value is not among those of a Literal type."""
    if value not in get_args(allowed):
        raise UserError(f"{what} is {value!r}; give one of {', '.join(get_args(allowed))}")

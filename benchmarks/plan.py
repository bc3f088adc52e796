"""The shape of a benchmark's plan: which types its values have."""

from collections.abc import Iterator
from typing import Any

_WORLD = {
    "rows": {str: int},
    "seeds": int,
    "networks": [str],
    "methods": [str],
    "tasks": {str: {"n": int, "seeds": bool, "without": [str]}},
    "curvature": float,
}
_METHOD = {"answers": [str], "networks": {str: str}, "seeds": bool}
_SETTINGS = {str: [{str: object}]}
_PLAN = {
    "worlds": {str: _WORLD},
    "steps": {str: int},
    "methods": {str: _METHOD},
    "tasks": {str: str},
    "search": {"n": int, "tasks": {str: str}, "generation": _SETTINGS, "editing": _SETTINGS},
}
"""Known keys with the shapes of their values; ``str`` stands for any key, and a list holds the shape of its items."""
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def mistyped(value: Any, shape: Any = _PLAN, key: str = "") -> Iterator[str]:
    """What a plan, or its part under ``key``, has of another type than its shape; keys without one are passed over."""
    wanted = {dict: "keys and values", list: "a list"}.get(type(shape)) or _WORDS.get(shape)
    kind = type(shape) if isinstance(shape, dict | list) else (int, float) if shape is float else shape
    if not isinstance(value, kind) or (isinstance(value, bool) and shape in (int, float)):
        yield f"{key or 'the plan'} is {value!r:.80}; give {wanted}"
    elif isinstance(shape, list):
        for i, each in enumerate(value):
            yield from mistyped(each, shape[0], f"{key}[{i}]")
    elif isinstance(shape, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                yield f"{key or 'the plan'} has the key {name!r}; give text"
            elif (inner := shape.get(name, shape.get(str))) is not None:
                yield from mistyped(each, inner, f"{key}.{name}".lstrip("."))

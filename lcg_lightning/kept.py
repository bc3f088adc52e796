"""Loads networks once: within a block, a loader that is asked again for the same thing gives the same object."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from lcg_lightning.files import plain

P = ParamSpec("P")
T = TypeVar("T")

_loaded: ContextVar[dict[str, Any] | None] = ContextVar("loaded", default=None)


@contextmanager
def loaded_once() -> Iterator[None]:
    """Within the block, functions under :func:`keeps` load each thing once. Files must not change meanwhile."""
    token = _loaded.set({})
    try:
        yield
    finally:
        _loaded.reset(token)


def keeps(load: Callable[P, T]) -> Callable[P, T]:
    """A loader of frozen networks, whose results :func:`loaded_once` may keep and share.

    Arguments that are neither plain values nor classes, such as a network itself, are not kept.
    """

    @wraps(load)
    def kept(*args: P.args, **kwargs: P.kwargs) -> T:
        loaded = _loaded.get()
        if loaded is None:
            return load(*args, **kwargs)
        try:
            key = json.dumps([load.__qualname__, plain(args), plain(kwargs)], default=_class_name)
        except TypeError:
            return load(*args, **kwargs)
        if key not in loaded:
            loaded[key] = load(*args, **kwargs)
        found: T = loaded[key]
        return found

    return kept


def _class_name(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    raise TypeError

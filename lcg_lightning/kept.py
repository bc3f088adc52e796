"""Loads and computes once: within a block, whoever asks again for the same thing gets the same object."""

import json
from collections.abc import Callable, Iterator, Sequence
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


def load_once() -> None:
    """The same from now on, for a worker process that runs many evaluations."""
    _loaded.set({})


def once(key: Sequence[Any], make: Callable[[], T]) -> T:
    """What ``make`` gives, which :func:`loaded_once` keeps and shares under a key; nobody may change it.

    Args:
        key: plain values, and fingerprints of all that the result depends on.
        make: computes it.
    """
    loaded = _loaded.get()
    if loaded is None:
        return make()
    text = json.dumps(plain(key), default=_class_name)
    if text not in loaded:
        loaded[text] = make()
    found: T = loaded[text]
    return found


def keeps(load: Callable[P, T]) -> Callable[P, T]:
    """A loader, such as one of frozen networks, whose results :func:`loaded_once` may keep and share.

    Arguments that are neither plain values nor classes, such as a network itself, are not kept.
    """

    @wraps(load)
    def kept(*args: P.args, **kwargs: P.kwargs) -> T:
        if _loaded.get() is None:
            return load(*args, **kwargs)
        key = [load.__qualname__, args, kwargs]
        try:
            json.dumps(plain(key), default=_class_name)
        except TypeError:
            return load(*args, **kwargs)
        return once(key, lambda: load(*args, **kwargs))

    return kept


def _class_name(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    raise TypeError

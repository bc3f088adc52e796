"""Reads pickles without executing a byte of them: only the names that a caller allows exist."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lcg_lightning.errors import UserError

Names = Mapping[tuple[str, str], Callable[..., Any]]
"""(module, name) in a pickle -> what stands for it here: a type, or a function that cannot be altered through it."""


def plain_names() -> Names:
    """Containers and numpy data, as any pickle of numbers may name them.

    Functions are made anew at each call: a pickle can set attributes on what it names, so it never gets the real ones.
    """
    names: dict[tuple[str, str], Callable[..., Any]] = {("collections", "OrderedDict"): OrderedDict}
    for module in ("builtins", "__builtin__"):
        names[module, "set"] = set
    names["_codecs", "encode"] = lambda text, _: text.encode("latin1")  # how numpy writes bytes in protocol 2
    names["numpy", "dtype"] = lambda *a, **k: np.dtype(*a, **k)
    names["numpy", "ndarray"] = np.ndarray
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[module, "scalar"] = lambda *a: np._core.multiarray.scalar(*a)  # type: ignore[attr-defined]
        names[module, "_reconstruct"] = lambda *a: np._core.multiarray._reconstruct(*a)  # type: ignore[attr-defined]
    return names


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, names: Names, what: str) -> None:
        super().__init__(file, encoding="latin1")
        self.names, self.what = names, what

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.names[module, name]
        except KeyError:
            raise UserError(
                f"refused to load {module}.{name}: not part of {self.what}; do not trust this file"
            ) from None


def read_pickle(path: Path, names: Names, what: str) -> Any:
    """What a pickle holds, if it names nothing but ``names``.

    Args:
        path: the file.
        names: all that it may name.
        what: what the file should be, for messages, such as "a StyleGAN2 network pickle".

    Raises:
        UserError: the file names anything else, is cut short, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, names, what).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give {what}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable {what.removeprefix('a ')} ({reason}); fetch it again") from None

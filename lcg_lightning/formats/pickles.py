"""Reads pickles and NumPy arrays from other programs without executing any of their content.

A pickle may refer only to names that the caller allows. NumPy's own reconstruction is not allowed, because a crafted
state makes it treat bytes as pointers. Arrays are recorded first and then built from plain numbers.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lcg_lightning.errors import UserError
from lcg_lightning.files import require_file

Names = Mapping[tuple[str, str], Callable[..., Any]]
"""(module, name) in a pickle -> its stand-in here: a type, or a function made for this one file."""

_NUMBERS = re.compile(r"[<>|=]?(?:[biufc]\d{1,2}|b1|\?)")


class _DType:
    """A dtype as a pickle states it."""

    def __init__(self, code: str = "", *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numbers(self) -> np.dtype[Any]:
        text = f"{self.order if self.order in ('<', '>') else ''}{self.code}"
        if not _NUMBERS.fullmatch(text):
            raise ValueError(f"data of type {text!r}")
        return np.dtype(text)


class _Array:
    """An array as a pickle states it: (version, shape, dtype, Fortran order, bytes or list)."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self) -> NDArray[Any]:
        _, shape, dtype, fortran, data = self.state
        if dtype.code.startswith("O"):
            flat = np.empty(len(data), object)
            flat[:] = [_build(item) for item in data]
        else:
            flat = np.frombuffer(data, dtype.numbers())
        return flat.reshape(shape, order="F" if fortran else "C")


def _build(value: Any) -> Any:
    """A value in which recorded arrays are replaced by real ones."""
    if isinstance(value, _Array):
        return value.build()
    if isinstance(value, dict):
        return {key: _build(item) for key, item in value.items()}
    return type(value)(_build(item) for item in value) if type(value) in (list, tuple) else value


def plain_names() -> Names:
    """Names for containers and NumPy data, which any pickle of numbers may use.

    Each call makes new functions, because a pickle can set attributes on the objects it names.
    """
    names: dict[tuple[str, str], Callable[..., Any]] = {("collections", "OrderedDict"): OrderedDict}
    for module in ("builtins", "__builtin__"):
        names[module, "set"] = set
        names[module, "bytes"] = lambda: b""  # in protocol 2
    names["_codecs", "encode"] = lambda text, _: text.encode("latin1")  # how numpy writes bytes in protocol 2
    names["numpy", "dtype"] = lambda *a: _DType(*a)
    names["numpy", "ndarray"] = lambda *_: None
    for module in ("numpy.core", "numpy._core"):
        names[f"{module}.multiarray", "scalar"] = lambda dtype, data: np.frombuffer(data, dtype.numbers())[0].item()
        names[f"{module}.multiarray", "_reconstruct"] = lambda *_: _Array()
        names[f"{module}.numeric", "_frombuffer"] = lambda data, dtype, shape, order: np.frombuffer(
            data, dtype.numbers()
        ).reshape(shape, order=order)
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
    """The content of a pickle that refers only to ``names``.

    Args:
        path: the file.
        names: the names that it may refer to.
        what: what the file should be, for messages, such as "a StyleGAN2 network pickle".

    Raises:
        UserError: the file refers to another name, is cut short, or cannot be read.
    """
    require_file(path, what)
    try:
        with path.open("rb") as file:
            return _build(_Unpickler(file, names, what).load())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable {what.removeprefix('a ')} ({reason}); fetch it again") from None


def read_array(path: Path) -> NDArray[np.float64]:
    """The array of real numbers in a .npy file.

    Raises:
        UserError: the file is damaged or holds anything other than real numbers.
    """
    require_file(path, "a .npy file of numbers")
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged file can fail in any way
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a .npy file of numbers ({reason}); fetch it again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = getattr(array, "dtype", "several arrays")
        raise UserError(f"{path} holds {kind}, not an array of real numbers; give the published .npy file")
    return array.astype(np.float64)

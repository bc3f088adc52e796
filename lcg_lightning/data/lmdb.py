"""Images in an LMDB."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lcg_lightning.errors import UserError

LMDB_SUFFIXES = (".lmdb", ".mdb")


@dataclass(frozen=True)
class LMDBImage:
    """An image file stored as an LMDB record."""

    folder: Path
    """The LMDB: a folder with data.mdb, or the file itself."""
    key: str

    def __str__(self) -> str:
        return f"{self.folder} record {self.key}"


def data_file(folder: Path) -> Path:
    """The data file of an LMDB that is a folder or a file."""
    return folder / "data.mdb" if folder.is_dir() else folder


@cache
def _environment(file: Path) -> Any:
    import lmdb

    environment = lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=False)
    whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < whole:  # reading mapped pages past the end would kill the process
        raise UserError(f"{file} is cut short, at {file.stat().st_size} of {whole} bytes; fetch it again")
    return environment


if hasattr(os, "register_at_fork"):  # a child can neither use nor reopen its parent's environments
    os.register_at_fork(before=_environment.cache_clear)


@contextmanager
def _transaction(folder: Path) -> Iterator[Any]:
    try:
        import lmdb
    except ImportError:
        raise UserError(f"{folder} is an LMDB; to read it, pip install 'lcg-lightning[lmdb]'") from None
    try:
        with _environment(data_file(folder)).begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise UserError(f"{folder} cannot be read as an LMDB ({error}); fetch it again") from None


@contextmanager
def record(ref: LMDBImage) -> Iterator[memoryview]:
    """The memory-mapped bytes of an image.

    Raises:
        UserError: the record is missing, or the LMDB is damaged or cut short.
    """
    with _transaction(ref.folder) as transaction:
        data = transaction.get(ref.key.encode())
        if data is None:
            raise UserError(f"{ref} is not there; fetch the LMDB again")
        yield data


def find_records(folder: Path, size: int | None) -> dict[str, LMDBImage]:
    """The images of one size by number without leading zeros; see :func:`lcg_lightning.data.images.find_images`.

    Raises:
        UserError: this is not an LMDB of images, or it is incomplete, or it has several sizes and ``size`` names none.
    """
    with _transaction(folder) as transaction:
        length = bytes(transaction.get(b"length") or b"")
        keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
    if not length.isdigit():
        raise UserError(f"{folder} has no record `length` that counts its images; fetch it again")
    sizes: dict[int, dict[int, str]] = defaultdict(dict)
    for key in keys:
        if name := re.fullmatch(rb"([0-9]+)-([0-9]+)", key):
            sizes[int(name[1])][int(name[2])] = key.decode()
    if not sizes:
        raise UserError(f"{folder} holds no images (records such as 256-00000); give another LMDB")
    if len(sizes) == 1:
        (size,) = sizes
    if size not in sizes:
        raise UserError(f"{folder} holds images of size {', '.join(map(str, sorted(sizes)))}, not {size}; name one")
    images, count = sizes[size], int(length)
    gap = next((i for i in range(count) if i not in images), None)
    if gap is not None:
        raise UserError(f"{folder} has length {count} but no record {size}-{gap:05d}; fetch it again")
    if len(images) > count:
        raise UserError(f"{folder} has length {count} but {len(images)} images of size {size}; fetch it again")
    return {str(i): LMDBImage(folder, images[i]) for i in range(count)}

"""Files: atomic writing, early checks, checksums, and JSON."""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lcg_lightning.errors import UserError

_PROBE = ".probe-"
"""Beginning of the name of what :func:`ensure_writable` puts into a folder for a moment."""


def plain(value: Any) -> Any:
    """A configuration as JSON values: paths become text, dataclasses dicts, tuples lists."""
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def require_file(path: Path, what: str) -> None:
    """Raise a UserError unless a path is a readable regular file.

    Reading a pipe could block forever, and a device may have no end.

    Args:
        path: the file.
        what: what the user should give instead, for the message.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; give {what}")
        path.open("rb").close()
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); give {what}") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or is not a regular file.
    """
    require_file(path, "a text file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{path} cannot be read as text ({reason})") from error


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: the file cannot be read, is not JSON, or gives a key twice in one object.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); restore or remove it") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file in 64 hex digits, as ``sha256sum`` prints it; about 0.1 s for 100 MB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_occupied(path: Path) -> None:
    """Raise a UserError if an output folder already exists and is not empty."""
    with _one_line(path):
        if path.exists() and (not path.is_dir() or any(not each.name.startswith(_PROBE) for each in path.iterdir())):
            raise UserError(f"{path} exists and is not empty; name another output folder or remove it")


def ensure_writable(folder: str | Path) -> None:
    """Check, before any computation, that files can be written into a folder.

    The folder need not exist yet. The check leaves nothing behind.

    Raises:
        UserError: the folder is not writable; the message gives the reason.
    """
    folder = Path(folder)
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    with _one_line(folder):
        if not there.is_dir():
            raise UserError(f"{folder} cannot be written ({there} is {_kind(there)}); name another place")
        probe = there / f"{_PROBE}{uuid.uuid4().hex[:8]}"
        probe.mkdir()
        try:
            inner = probe / folder.relative_to(there)
            inner.mkdir(parents=True, exist_ok=True)
            (inner / "probe").write_bytes(bytes(4096))
        finally:
            shutil.rmtree(probe)


def ensure_creatable(folder: str | Path) -> None:
    """Check, before any computation, that :func:`atomic_folder` can make a folder.

    Raises:
        UserError: the path exists and is not an empty folder, or it is not writable.
    """
    folder = Path(folder)
    refuse_occupied(folder)
    ensure_writable(folder)
    if Path(os.path.realpath(folder)).is_mount():
        raise UserError(f"{folder} is a mount point, which cannot be replaced; name a folder in it")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; the file written there is renamed to ``path`` at the end.

    If the block fails, the temporary file is removed and ``path`` stays as it was. The content is synced to disk
    before the rename. If ``path`` is a link, the link stays and its target is replaced.

    Raises:
        UserError: the file cannot be written: a full disk, a read-only folder, a name too long, a dangling link.
    """
    path = Path(path)
    with _one_line(path):
        if path.is_dir() or (path.is_symlink() and not path.exists()):
            raise UserError(f"{path} cannot be written (it is {_kind(path)}); name another place")
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``path``, which is renamed to ``path`` at the end.

    If the block fails, the temporary folder is removed. If two processes make the same folder, the first to finish
    wins and the other fails. Use :func:`atomic` for files that must survive a power loss.

    Raises:
        UserError: ``path`` exists and is not empty, or cannot be written.
    """
    path = Path(path)
    ensure_creatable(path)
    with _one_line(path):
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        temporary.mkdir()
        try:
            yield temporary
            rename_folder(temporary, target)
        except UserError as error:
            raise UserError(str(error).replace(str(temporary), str(path))) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder to its final name; the target may be an empty folder or a link to one.

    Raises:
        UserError: ``target`` exists and is not empty; it is left unchanged.
    """
    with _one_line(target):
        refuse_occupied(target)
        real = Path(os.path.realpath(target))
        os.rename(source, real)  # fails if another process has filled the target since
        _sync(real.parent)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks a folder for one run until the block or the process ends.

    On file systems without locks, this does nothing.

    Raises:
        UserError: another run holds the folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"another run is writing to {folder}; wait until it ends, or stop it") from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns a failure to write ``path`` into a one-line UserError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save wraps the cause
        if not isinstance(cause, OSError | SafetensorError) or isinstance(cause, ConnectionError):
            raise
        reason = " ".join(str(getattr(cause, "strerror", None) or cause).split())
        raise UserError(f"{path} cannot be written ({reason}); make room or name another place") from error


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a file" if path.exists() else "a link to nowhere"


def _sync(path: Path) -> None:
    """Sync a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is given twice")
    return found

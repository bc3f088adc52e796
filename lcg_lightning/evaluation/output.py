"""The folder of an evaluation: held by one run from before it computes until it is filled."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic_folder, ensure_writable, refuse_occupied


class Claim:
    """A folder that is to be made. An empty one is left where a run is cut off, and may be claimed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle: int | None = None

    def take(self) -> None:
        """Makes the folder, and holds it until :meth:`release` or the end of the process.

        Raises:
            UserError: it is there and not empty, cannot be written, or another run holds it.
        """
        refuse_occupied(self.path)
        ensure_writable(self.path)
        if self.path.is_mount():
            raise UserError(f"{self.path} is a mount point; name a folder in it")
        self.path.mkdir(parents=True, exist_ok=True)
        self.handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise UserError(f"{self.path}: another run is to write there; name another output folder") from None
        except OSError:
            pass  # a file system without locks
        refuse_occupied(self.path)  # by a run that ended since

    @contextmanager
    def fill(self) -> Iterator[Path]:
        """A temporary folder that takes the claimed folder's place at the end, all at once, or not at all."""
        with atomic_folder(self.path) as folder:
            yield folder
        self.release()

    def release(self) -> None:
        """Lets others claim the folder."""
        handle, self.handle = self.handle, None
        if handle is not None:
            with suppress(OSError):
                os.close(handle)

    def __del__(self) -> None:
        self.release()

"""The folder of an evaluation: held by one run from before it computes until it is filled."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lcg_lightning.files import atomic_folder, ensure_creatable, held, refuse_occupied


class Claim:
    """A folder that is to be made. An empty one is left where a run is cut off, and may be claimed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = ExitStack()

    def take(self) -> None:
        """Makes the folder, and holds it until :meth:`release` or the end of the process.

        Raises:
            UserError: it is there and not empty, cannot be written, or another run holds it.
        """
        ensure_creatable(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock.enter_context(held(self.path))
        refuse_occupied(self.path)  # by a run that ended since

    @contextmanager
    def fill(self) -> Iterator[Path]:
        """A temporary folder that takes the claimed folder's place at the end, all at once, or not at all."""
        with atomic_folder(self.path) as folder:
            yield folder
        self.release()

    def release(self) -> None:
        """Lets others claim the folder."""
        self.lock.close()

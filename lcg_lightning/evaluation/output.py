"""The output folder of an evaluation, which one run holds from its start until the folder is filled."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightning.pytorch.strategies import Strategy

from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic_folder, ensure_creatable, held, refuse_occupied


class Claim:
    """A claimed output folder. A run that is cut off leaves it empty, and it can be claimed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = ExitStack()

    def take(self) -> None:
        """Makes the folder, and holds it until :meth:`release` or the end of the process.

        Raises:
            UserError: the folder exists and is not empty, cannot be written, or is held by another run.
        """
        ensure_creatable(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock.enter_context(held(self.path))
        refuse_occupied(self.path)  # another run may have filled it in the meantime

    def take_everywhere(self, strategy: Strategy) -> None:
        """Lets the first process :meth:`take` the folder; if it cannot, every process raises the reason."""
        refusal = None
        if strategy.is_global_zero:
            try:
                self.take()
            except UserError as error:
                refusal = str(error)
        refusal = strategy.broadcast(refusal)
        if refusal is not None:
            raise UserError(refusal)

    @contextmanager
    def fill(self) -> Iterator[Path]:
        """Yields a temporary folder that atomically replaces the claimed folder at the end."""
        with atomic_folder(self.path) as folder:
            yield folder
        self.release()

    def release(self) -> None:
        """Lets others claim the folder."""
        self.lock.close()

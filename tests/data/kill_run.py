"""Kills an encoding before each of its changes to the file system in turn, and starts it again each time.

It forks, so it must be a process of its own that has started no threads. Prints one line for each kill.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from lcg_lightning.data.encode import encode
from tests.data.encode_run import FakeGenerator, annotated

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def in_a_fork(action: Callable[[], object]) -> int:
    """The exit status of a copy of this process that does something."""
    if not (child := os.fork()):
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def encode_into(out: Path, images: Path) -> None:
    encode(annotated(images), FakeGenerator(), out, batch_size=8, accelerator="cpu")


def encode_until(call: int, out: Path, images: Path) -> None:
    """Ends the process before it changes the folder of ``out`` for the ``call``-th time."""
    calls = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal calls
        changes = event in CHANGES or (event == "open" and args[1] not in ("r", "rb"))
        if changes and str(args[0]).startswith(str(out.parent)):
            calls += 1
            if calls == call:
                os._exit(9)

    sys.addaudithook(hook)
    encode_into(out, images)


if __name__ == "__main__":
    torch.set_num_threads(1)
    images, root = map(Path, sys.argv[1:])
    for call in range(1, 200):
        out = root / str(call) / "store"
        out.parent.mkdir(parents=True)
        if in_a_fork(lambda call=call, out=out: encode_until(call, out, images)) == 0:  # type: ignore[misc]
            break
        partial = out.with_name("store.partial").exists()
        state = f"store {out.exists()} partial {partial}"
        again = "done" if out.exists() and not partial else in_a_fork(lambda out=out: encode_into(out, images))  # type: ignore[misc]
        print(call, state, "again", again, flush=True)

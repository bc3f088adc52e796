"""Commands of ``lcg`` in processes of their own, and networks that are trained for a moment."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.worlds import World

MOMENT = {"prior": 2, "classifier": 2}
"""Steps of trainings for measurements that do not depend on what was learned."""


def lcg(argv: Sequence[str], status: int = 0, threads: int | None = None) -> None:
    """Runs ``lcg``; any other exit status is an error that shows what it said."""
    python("-m", "lcg_lightning", *argv, status=status, threads=threads)


def python(*argv: str, status: int = 0, threads: int | None = None) -> None:
    """Runs Python, with the given number of threads or the machine's."""
    env = os.environ if threads is None else os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, *argv], env=env, capture_output=True, text=True, check=False)
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr[-500:]}")


def momentary(world: World) -> dict[str, Path]:
    """Makes a world's store and networks; returns the checkpoints by network."""
    for job in (*world.faces(), world.store(), *world.fits()):
        if not job.out.exists():
            lcg(job.argv)
    return {name: world.checkpoint(name, 0) for name in world.steps}

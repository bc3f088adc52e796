"""Commands of ``lcg`` on several processes: each begins as soon as what it rests on is done, and none runs twice."""

import contextlib
import multiprocessing
import os
import shutil
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from lcg_lightning.evaluation import records
from lcg_lightning.kept import load_once

console = Console()


@dataclass(frozen=True)
class Job:
    """One command of ``lcg`` and the folder that it fills."""

    name: str
    argv: tuple[str, ...]
    out: Path
    after: "tuple[Job, ...]" = ()
    """The jobs that it rests on."""

    def digest(self) -> str:
        """Of the arguments and of the configuration files among them."""
        files = [Path(a.removeprefix("--config=")) for a in self.argv if a.startswith("--config=")]
        return sha256(b"\0".join([*(a.encode() for a in self.argv), *(f.read_bytes() for f in files)])).hexdigest()


def run_all(jobs: Iterable[Job], workers: int) -> list[str]:
    """Runs the jobs that are not done, each as soon as all that it rests on is; returns the names of those that failed.

    Every process is a pool of its own, so one that dies, as for lack of memory, takes no other with it.
    """
    jobs = list(jobs)
    left = [job for job in jobs if not is_done(job)]
    total, failed, begin = len(left), list[str](), time.perf_counter()
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # NumPy's and scikit-learn's too, which torch.set_num_threads leaves alone
    console.rule(f"{total} of {len(jobs)} to do", align="left")
    idle = [process() for _ in range(min(workers, total))]
    running: dict[Future[tuple[bool, float, str]], tuple[Job, ProcessPoolExecutor]] = {}
    status = console.status("")
    status.start()
    try:
        while left or running:
            while idle and (job := next((job for job in left if all(map(is_done, job.after))), None)):
                pool = idle.pop()
                try:
                    running[pool.submit(work, job)] = job, pool
                    left.remove(job)
                    status.update(f"running {', '.join(each.name for each, _ in running.values())}")
                except BrokenProcessPool:  # it died while it waited
                    idle.append(process())
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, pool = running.pop(future)
                try:
                    ok, seconds, words = future.result()
                except BrokenProcessPool:
                    pool, ok, seconds, words = process(), False, 0.0, "its process died; is there enough memory?"
                except Exception as error:  # of the bookkeeping around the command, as on a full disk
                    ok, seconds, words = False, 0.0, f"{type(error).__name__}: {error}"
                idle.append(pool)
                failed += [] if ok else [job.name]
                ended = total - len(left) - len(running)
                state = f"[{ended}/{total} after {(time.perf_counter() - begin) / 60:.1f} min]"
                console.print(
                    f"{state} {job.name}: {seconds:.0f} s. {words}", highlight=False, markup=False, soft_wrap=True
                )
    finally:
        status.stop()
        os.environ.pop("OMP_NUM_THREADS") if threads is None else os.environ.update(OMP_NUM_THREADS=threads)
        for pool in (*idle, *(pool for _, pool in running.values())):
            pool.shutdown(wait=False)
    for job in left:
        console.print(f"{job.name}: not run, as a job that it rests on failed", highlight=False, markup=False)
    return [*failed, *(job.name for job in left)]


def process() -> ProcessPoolExecutor:
    """One worker process, whose numerical libraries use one thread."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), set_up, (os.getpid(),))


def set_up(parent: int) -> None:
    """Lets a worker process load once what its jobs share, and end when its parent does, however that ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    # image readers start as in a command, not by spawn as this process did
    multiprocessing.set_start_method(None, force=True)
    load_once()
    threading.Thread(target=watch, daemon=True).start()


def mark(job: Job) -> Path:
    """The file that says that a job is done, beside its folder."""
    return job.out.parent / f".{job.out.name}.done"


def is_done(job: Job) -> bool:
    """Whether the job ran to its end with these arguments and configuration files, after all that it rests on."""
    if not (job.out.exists() and mark(job).exists() and mark(job).read_text().split()[:1] == [job.digest()]):
        return False
    return all(is_done(each) and mark(each).stat().st_mtime_ns <= mark(job).stat().st_mtime_ns for each in job.after)


def minutes(stages: Mapping[str, Sequence[Job]]) -> Table:
    """What each stage's jobs that are done took of one core, in this run or an earlier one."""
    table = Table("stage", "done", "minutes of one core", "longest", box=box.SIMPLE)
    for stage, jobs in [*stages.items(), ("all", list(chain(*stages.values())))]:
        took = [float(s) / 60 for job in jobs if is_done(job) for s in mark(job).read_text().split()[1:]]
        table.add_row(stage, f"{len(took)} of {len(jobs)}", f"{sum(took):.1f}", f"{max(took, default=0.0):.1f}")
    return table


def work(job: Job) -> tuple[bool, float, str]:
    """Runs one job in this process, its output in ``<folder>.log``; returns success, seconds and the last line.

    A method that diverges is a result, which its record tells.
    """
    import torch

    from lcg_lightning.cli import main

    torch.set_num_threads(1)
    begin = time.perf_counter()
    mark(job).unlink(missing_ok=True)
    shutil.rmtree(job.out, ignore_errors=True)
    job.out.parent.mkdir(parents=True, exist_ok=True)
    log = job.out.parent / f"{job.out.name}.log"
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            status = main(job.argv)
        except (Exception, SystemExit):
            traceback.print_exc()
            status = 1
    record, seconds = job.out / "record.json", time.perf_counter() - begin
    ok = status == 0 or (record.exists() and records.read(record).failure is not None)
    if ok:
        mark(job).write_text(f"{job.digest()} {seconds:.1f}")
    lines = [line for line in log.read_text().splitlines() if line.strip()] or [""]
    return ok, seconds, "" if "━" in lines[-1] else lines[-1][:200]  # a progress bar that is over says nothing

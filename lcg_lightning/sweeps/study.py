"""The Optuna study behind a sweep: any number of processes share its trials, and a killed process loses only its own.

A sweep has points 0, 1, ... up to its number of trials. A fresh trial takes the point that equals its rank among fresh
trials, so processes that ask at once get different points. A point is tried again, under a new number, where its trial
was cut off. Draws depend on the point alone (for TPE also on the results so far), not on the process.
"""

import fcntl
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lcg_lightning.errors import UserError
from lcg_lightning.sweeps.file import Sweep
from lcg_lightning.sweeps.parameters import Listed, tidy

T = TypeVar("T")

JOURNAL = "study.log"
_HEARTBEAT = 30
"""Seconds between two signs of life in a database."""
_UNCLAIMED = timedelta(minutes=1)
"""Age after which a running trial that no process has put its name to was cut off."""


def open_study(sweep: Sweep, identity: str, out: Path, storage: str | None) -> optuna.Study:
    """The study of a sweep, new or with the trials that it has.

    Args:
        sweep: the sweep.
        identity: digest of everything that decides a trial's result; another identity is another study.
        out: the sweep's folder, which holds the journal.
        storage: URL of a database or of Redis, instead of the journal.

    Raises:
        UserError: the storage cannot be opened, or the folder or a trial in it belongs to another sweep.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = f"{sweep.name}-{identity[:8]}"
    where = str(out / JOURNAL) if storage is None else storage
    kept = _patiently(lambda: _storage(where), where)
    others = [] if storage else [other for other in optuna.get_all_study_names(kept) if other != name]
    if others:
        raise UserError(
            f"{out} holds another sweep, {others[0]}, or this one with other data or networks; name another folder "
            "with --out"
        )
    places = [path.name for path in out.glob("trial-*")]  # before the study is read: its other processes go on
    direction = StudyDirection.MAXIMIZE if sweep.maximize else StudyDirection.MINIMIZE
    study = _patiently(
        lambda: optuna.create_study(storage=kept, study_name=name, direction=direction, load_if_exists=True), where
    )
    own = {folder(trial.number) for trial in study.get_trials(deepcopy=False)}
    if foreign := sorted(set(places) - own):
        raise UserError(f"{out / foreign[0]} belongs to another sweep; name another folder with --out")
    return study


def _patiently(open_it: Callable[[], T], where: str, attempts: int = 3) -> T:
    """What a storage answers; processes that make its tables at the same time fail, and succeed a moment later."""
    for attempt in range(attempts):
        try:
            return open_it()
        except Exception as error:  # every kind of database has its own errors
            if attempt == attempts - 1:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError(f"the storage {where} cannot be opened ({reason[0]}); name another") from error
            time.sleep(1.0)
    raise AssertionError


def _storage(where: str) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalRedisBackend

    if "://" not in where:
        # not the symbolic link that is the default: it leads nowhere from a relative path, and then, after a process
        # was killed that held it, it is waited for for ever
        lock = JournalFileOpenLock(where)
        lock.acquire()
        try:
            _drop_half_line(Path(where))
        finally:
            lock.release()
        return JournalStorage(JournalFileBackend(where, lock))
    if where.startswith("redis"):
        return JournalStorage(JournalRedisBackend(where))
    patience = {"connect_args": {"timeout": 60}} if where.startswith("sqlite") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(where, patience, heartbeat_interval=_HEARTBEAT, grace_period=4 * _HEARTBEAT)


def _drop_half_line(journal: Path) -> None:
    """Cuts off the line that a process was writing when it was killed; what is appended to it could not be read."""
    with suppress(FileNotFoundError), journal.open("r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)


@contextmanager
def worker(out: Path) -> Iterator[str]:
    """The name of this process among those of a sweep: a file in its folder, locked while the process lives."""
    name = f".worker-{uuid.uuid4().hex[:12]}"
    handle = os.open(out / name, os.O_CREAT | os.O_RDWR)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield name
    finally:
        (out / name).unlink(missing_ok=True)
        os.close(handle)


def _died(name: str, out: Path) -> bool:
    """Whether a process left its file here and no longer holds it. Of processes elsewhere, nothing is known."""
    try:
        handle = os.open(out / name, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def recover(study: optuna.Study, sweep: Sweep, out: Path) -> None:
    """Queues again the points of trials that were cut off: a killed process, Ctrl-C, a machine that is gone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # only databases tell; elsewhere it does nothing
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        claimed = trial.user_attrs.get("worker")
        begun = trial.datetime_start or datetime.now()
        if _died(claimed, out) if claimed else datetime.now() - begun > _UNCLAIMED:
            with suppress(ValueError, RuntimeError):  # another process did it first
                study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("again") for trial in trials}
    for trial in trials:
        if _cut_off(trial) and trial.number not in again and (point := point_of(trial, trials)) < total(sweep):
            with suppress(OSError):
                (out / folder(trial.number)).rmdir()  # empty: a record arrives whole
            about = {"again": trial.number, "point": point}
            study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=about))


def _cut_off(trial: FrozenTrial) -> bool:
    """Whether a trial ended without a result of its own; two processes may have queued one point, and one gave way."""
    ended = trial.state in (TrialState.FAIL, TrialState.PRUNED)
    return ended and "reason" not in trial.user_attrs and "twin" not in trial.user_attrs


def folder(number: int) -> str:
    """Name of a trial's folder."""
    return f"trial-{number}"


def total(sweep: Sweep) -> int:
    """Number of points of a sweep."""
    points = len(sweep.grid()) if sweep.method == "grid" else sweep.cap or 0
    return min(points, sweep.cap or points)


def point_of(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    """The point of a trial: that of the trial which it repeats, or else its rank among the trials that repeat none."""
    if "again" in trial.user_attrs:
        return int(trial.user_attrs["point"])
    return sum("again" not in other.user_attrs for other in trials if other.number < trial.number)


def left(study: optuna.Study, sweep: Sweep) -> bool:
    """Whether a trial waits, or a point has never been taken."""
    trials = study.get_trials(deepcopy=False)
    waiting = any(trial.state == TrialState.WAITING for trial in trials)
    return waiting or sum("again" not in trial.user_attrs for trial in trials) < total(sweep)


def claim(trial: optuna.Trial, sweep: Sweep, name: str) -> dict[str, str]:
    """Takes a trial for this process and draws its parameters, as the command line takes them.

    Raises:
        optuna.TrialPruned: all points are taken, or another trial has this one.
    """
    trial.set_user_attr("worker", name)
    trials = trial.study.get_trials(deepcopy=False)
    own = next(each for each in trials if each.number == trial.number)
    point = point_of(own, trials)
    repeated = own.user_attrs.get("again")
    if repeated is not None and any(
        other.user_attrs.get("again") == repeated for other in trials if other.number < own.number
    ):
        trial.set_user_attr("twin", True)
        raise optuna.TrialPruned
    if point >= total(sweep):
        raise optuna.TrialPruned
    trial.study.sampler = _sampler(sweep, point)
    drawn = {name: _suggest(trial, name, sweep) for name in sweep.swept}
    constant = {name: each.texts[0] for name, each in sweep.parameters.items() if isinstance(each, Listed)}
    return {name: drawn.get(name, constant.get(name, "")) for name in sweep.parameters}


def _suggest(trial: optuna.Trial, name: str, sweep: Sweep) -> str:
    each = sweep.parameters[name]
    if sweep.method == "grid" and not isinstance(each, Listed):
        each = each.listed()
    if isinstance(each, Listed):
        return trial.suggest_categorical(name, each.texts)
    if each.whole:
        assert isinstance(each.step, int)
        return str(trial.suggest_int(name, int(each.low), int(each.high), step=each.step))
    return str(tidy(trial.suggest_float(name, each.low, each.high, step=each.step, log=each.log)))


def _sampler(sweep: Sweep, point: int) -> BaseSampler:
    if sweep.method == "grid":
        return _GridPoint(sweep.grid()[point])
    return RandomSampler(seed=point) if sweep.method == "random" else TPESampler(seed=point)


class _GridPoint(RandomSampler):
    """Gives one point of a grid.

    Optuna's own GridSampler goes through the points in no order, and gives a point that is still running to the next
    process when none is left.
    """

    def __init__(self, point: Mapping[str, str]) -> None:
        super().__init__()
        self.point = point

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """The point's value."""
        return self.point[param_name]

"""``lcg sweep``: runs a sweep file in W&B's format through Optuna, without an account."""

import contextlib
import io
import shlex
import uuid
from pathlib import Path
from typing import Any

from lcg_lightning.commands import preflight
from lcg_lightning.commands.mistakes import explain
from lcg_lightning.commands.quiet import quiet
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import owner
from lcg_lightning.evaluation.records import read
from lcg_lightning.files import ensure_writable
from lcg_lightning.formats.fingerprint import combine
from lcg_lightning.kept import loaded_once
from lcg_lightning.sweeps.file import Sweep, read_sweep

FIGURE = "sweep.png"
_UNBOUNDED = 1000
"""Columns of what is no terminal, so that the table takes the width that it needs."""


def sweep(file: Path, out: Path | None = None, trials: int | None = None, storage: str | None = None) -> None:
    """Search an evaluation's options as a W&B sweep file asks, through Optuna and without an account.

    The same file runs under ``wandb sweep`` and ``wandb agent``. Each trial is an evaluation in a folder of its own,
    and networks are loaded once. An interrupted sweep goes on when it is started again. Several processes may work on
    one sweep: start the command several times. Ends with a table, a figure of the metric over each parameter, and the
    command that repeats the best trial.

    Args:
        file: sweep in W&B's format, whose command is ``lcg test`` (see configs/sweeps).
        out: folder of the trials and of the journal; runs/sweeps and the file's name by default.
        trials: number of trials, instead of the file's run_cap; at most those of a grid.
        storage: URL of an Optuna storage that many machines share, such as postgresql://..., instead of the journal.
    """
    search = read_sweep(file, trials)
    out = Path("runs/sweeps", file.stem) if out is None else out
    ensure_writable(out)
    preflight.check(search.arguments({}, out / "trial"), "model.init_args.out")
    from lcg_lightning.sweeps.study import open_study, worker

    with loaded_once():
        identity = _checked(search, file)
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not storage and not any(out.glob("study.log*")):
            raise UserError(f"{out} is not empty and holds no sweep; name another folder with --out")
        study = open_study(search, identity, out, storage)
        with worker(out) as name:
            _work(study, search, out, name)
    _report(study, search, out)


def _checked(search: Sweep, file: Path) -> str:
    """Parses every value of every parameter, and sets up the first trial without running it.

    Returns:
        a digest of the sweep, of the evaluation's configuration, and of the store and the networks.

    Raises:
        UserError: the command line knows no such parameter or value, or the evaluation reports no such figure.
    """
    from lcg_lightning.commands import training
    from lcg_lightning.evaluation.module import Evaluation

    quiet()
    nowhere = file.parent / f".{uuid.uuid4().hex}"
    probes = search.probes()
    parser: Any = training.run(search.arguments(probes[0], nowhere), training.Parsed).parser
    for probe in probes:
        config = parser.parse_args(search.arguments(probe, nowhere)).test
    if config.trainer.devices not in (1, "1", "auto"):
        raise UserError(
            f"trainer.devices is {config.trainer.devices}, but a trial of a sweep runs in one process; set 1, and "
            "start lcg sweep several times instead"
        )
    ready = training.run(search.arguments(probes[0], nowhere), training.Prepared)
    if not isinstance(ready.model, Evaluation):
        raise UserError(f"{file}: the command tests a {type(ready.model).__name__}; name the model Evaluation")
    ready.model.trainer, ready.trainer.datamodule = ready.trainer, ready.datamodule  # type: ignore[attr-defined]
    try:
        ready.model.setup("test")
    finally:
        ready.model.claim.release()
        with contextlib.suppress(OSError):
            nowhere.rmdir()
    columns = [column.name for column in ready.model.record.columns]
    if owner(search.metric) not in columns:
        raise UserError(f"{file}: this evaluation reports no {search.metric}; name one of {', '.join(columns)}")
    first = parser.dump(parser.parse_args(search.arguments(probes[0], Path("out"))))
    networks = {k: v for k, v in ready.model.record.fingerprints.items() if k != "method"}  # fits differ by machine
    return combine(search.method, search.metric, search.maximize, dict(search.parameters), first, networks)


def _work(study: Any, search: Sweep, out: Path, name: str) -> None:
    """Runs trials until none is left to this process."""
    from lcg_lightning.sweeps import study as shared

    def objective(trial: Any) -> float:
        return _trial(trial, search, out, name)

    while True:
        shared.recover(study, search, out)
        if not shared.left(study, search):
            return
        study.optimize(objective, n_trials=1, catch=(_Failed,), callbacks=[_tell_of(search)])


class _Failed(Exception):
    """A trial that ended with a user's error, as one does that diverges."""


def _trial(trial: Any, search: Sweep, out: Path, name: str) -> float:
    """Evaluates one point; its figures go into the study."""
    from lcg_lightning.commands import training
    from lcg_lightning.sweeps import report
    from lcg_lightning.sweeps import study as shared

    point = shared.claim(trial, search, name)
    trial.set_user_attr("arguments", point)
    place = out / shared.folder(trial.number)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            training.run(search.arguments(point, place))
    except SystemExit as end:
        raise (KeyboardInterrupt if isinstance(end.__context__, KeyboardInterrupt) else end) from end
    except Exception as error:
        trial.set_user_attr("reason", explain(error, "test") or f"{type(error).__name__}: {error}")
        if explain(error, "test") is None:
            raise
        raise _Failed from error
    record = read(place / "record.json")
    if search.metric not in record.metrics:
        trial.set_user_attr("reason", record.failure or f"no {search.metric} was measured")
        if record.failure is not None:
            raise _Failed
        raise UserError(f"{place}: no {search.metric} was measured; name one of {', '.join(record.metrics)}")
    for key, value in report.kept(record).items():
        trial.set_user_attr(key, value)
    return record.metrics[search.metric].value


def _tell_of(search: Sweep) -> Any:
    """A callback that prints a line for each trial that has ended."""
    from optuna.trial import TrialState

    from lcg_lightning.sweeps import report
    from lcg_lightning.sweeps import study as shared

    def tell(study: Any, trial: Any) -> None:
        if trial.state == TrialState.PRUNED:
            return
        trials = study.get_trials(deepcopy=False)
        ended = report.ended(trials)
        seconds = sum(report.seconds(each) for each in ended) / max(1, len(ended))
        processes = 1 + sum(each.state == TrialState.RUNNING for each in trials)
        total = shared.total(search)
        rest = seconds * (total - len(ended)) / processes
        print(report.line(trial, search, len(ended), total, rest), flush=True)

    return tell


def _report(study: Any, search: Sweep, out: Path) -> None:
    from rich.console import Console

    from lcg_lightning.sweeps import report

    trials = report.ranked(study.get_trials(deepcopy=False), search)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_UNBOUNDED)
    console.print(report.table(trials, search, intervals=console.width >= 120))
    if report.draw(trials, search, out / FIGURE):
        print(f"Written: {out / FIGURE}")
    if running := [trial.number for trial in trials if not trial.state.is_finished()]:
        print(f"Running in other processes: trials {', '.join(map(str, running))}; start the command again to see them")
    best = next((trial for trial in trials if trial.value is not None), None)
    if best is not None:
        command = search.arguments(report.point(best), Path("runs", f"{search.name}-best"))
        print(
            f"Best {search.metric}: {best.value:g}, trial {best.number}. To repeat it:\n{shlex.join(['lcg', *command])}"
        )
    elif not running:
        reason = trials[0].user_attrs["reason"] if trials else "none was run"
        raise UserError(f"every trial of {search.name} failed; the first: {reason}")

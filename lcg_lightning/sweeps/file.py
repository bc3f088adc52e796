"""Sweep files: W&B's format, as ``wandb sweep`` takes it."""

import difflib
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcg_lightning.errors import UserError
from lcg_lightning.sweeps.parameters import Listed, Parameter, Ranged, read_parameter
from lcg_lightning.yaml_files import load_yaml

METHODS = ("grid", "random", "bayes")
_OWN = ("method", "metric", "parameters", "command")
_KEYS = (*_OWN, "name", "description", "project", "entity", "program", "run_cap")
_PASSED_OVER = {
    "early_terminate": "an evaluation reports once, at its end, so there is nothing to stop early",
    "controller": "it is for W&B's own controller",
}
_ARGS = "${args}"
_OUT = "--model.init_args.out"
_QUIET = ("--trainer.logger=false", "--trainer.enable_progress_bar=false")


@dataclass(frozen=True)
class Sweep:
    """A search over the options of one evaluation."""

    name: str
    method: str
    """grid, random or bayes."""
    metric: str
    """Name of a figure that the evaluation reports."""
    maximize: bool
    parameters: Mapping[str, Parameter]
    """Parameters by their option, such as ``model.init_args.method.init_args.scale``."""
    words: Sequence[str]
    """The arguments of ``lcg``, from ``test`` on, with ``${args}`` where the parameters go."""
    cap: int | None
    """Largest number of trials."""

    @property
    def swept(self) -> list[str]:
        """The parameters with more than one value."""
        return [name for name, each in self.parameters.items() if not isinstance(each, Listed) or len(each.texts) > 1]

    def grid(self) -> list[dict[str, str]]:
        """All points of a grid, the last parameter changing fastest."""
        points: list[dict[str, str]] = [{}]
        for name, each in self.parameters.items():
            listed = each.listed() if isinstance(each, Ranged) else each
            points = [point | {name: text} for point in points for text in listed.texts]
        return points

    def probes(self) -> list[dict[str, str]]:
        """Points that hold, together, each listed value and both ends of each range."""
        ends = {
            name: each.texts if isinstance(each, Listed) else (str(each.low), str(each.high))
            for name, each in self.parameters.items()
        }
        first = {name: texts[0] for name, texts in ends.items()}
        return [first, *(first | {name: text} for name, texts in ends.items() for text in texts[1:])]

    def arguments(self, point: Mapping[str, Any], out: Path) -> list[str]:
        """The arguments of ``lcg`` for one point, without logger and progress bar.

        Parameters are passed as ``wandb agent`` passes them, so both runs are the same.
        """
        flags = [f"--{name}={value}" for name, value in point.items()]
        at = self.words.index(_ARGS)
        return [*self.words[:at], *flags, *self.words[at + 1 :], f"{_OUT}={out}", *_QUIET]


def read_sweep(path: Path, trials: int | None = None) -> Sweep:
    """Reads a sweep.

    Args:
        path: YAML file in W&B's format, whose command is ``lcg test``.
        trials: number of trials, instead of the file's ``run_cap``.

    Raises:
        UserError: the file is not a sweep, or it asks for something that only W&B's servers can do.
    """
    given = load_yaml(path)
    if not isinstance(given, dict):
        raise UserError(f"{path} holds no keys and values; give a sweep in W&B's format (see configs/sweeps)")
    for key in given:
        if key in _PASSED_OVER:
            raise UserError(f"{path}: {key} is not supported ({_PASSED_OVER[key]}); remove it")
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"a sweep has {', '.join(_KEYS)}"
            raise UserError(f"{path}: unknown key {key!r}; {hint}")
    if missing := [key for key in _OWN if not given.get(key)]:
        raise UserError(f"{path}: no {missing[0]}; give it (see configs/sweeps)")
    if given["method"] not in METHODS:
        raise UserError(f"{path}: method is {given['method']!r}; use {', '.join(METHODS)}")
    metric = given["metric"]
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str) or metric.keys() - {"name", "goal"}:
        raise UserError(f"{path}: metric is {metric!r}; give a name and a goal")
    goal = metric.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: metric.goal is {goal!r}; use minimize or maximize")
    if not isinstance(given["parameters"], dict):
        raise UserError(f"{path}: parameters is {given['parameters']!r}; give options, each with its values")
    if _OUT.lstrip("-") in given["parameters"]:
        raise UserError(f"{path}: parameters has {_OUT.lstrip('-')}, but each trial has a folder of its own; remove it")
    parameters = {str(k): read_parameter(v, f"{path}: parameters.{k}") for k, v in given["parameters"].items()}
    sweep = Sweep(
        name=str(given.get("name") or path.stem),
        method=given["method"],
        metric=metric["name"],
        maximize=goal == "maximize",
        parameters=parameters,
        words=_words(given, path),
        cap=_cap(given.get("run_cap"), path) if trials is None else _cap(trials, Path("--trials")),
    )
    return _bounded(sweep, path)


def _cap(value: Any, where: Path) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"{where}: the number of trials is {value!r}; give 1 or more")
    return value


def _bounded(sweep: Sweep, path: Path) -> Sweep:
    if sweep.method != "grid":
        if sweep.cap is None:
            raise UserError(f"{path}: method {sweep.method} has no end; set run_cap, or give --trials")
        return sweep
    for name, each in sweep.parameters.items():
        if isinstance(each, Ranged) and each.step is None:
            raise UserError(f"{path}: parameters.{name} has no steps, which a grid needs; give values, or q_uniform")
    count = math.prod(e.count if isinstance(e, Ranged) else len(e.texts) for e in sweep.parameters.values())
    if count > 100_000:
        raise UserError(f"{path}: the grid has {count} points; give fewer values, or use random")
    return sweep


def _words(given: Mapping[str, Any], path: Path) -> list[str]:
    """The command's words from ``test`` on, as ``/usr/bin/env`` would split and fill them."""
    command = given["command"]
    if not isinstance(command, list):
        raise UserError(f"{path}: command is {command!r}; give a list of words (see configs/sweeps)")
    words = [str(given.get("program")) if word == "${program}" else str(word) for word in command]
    if words[:1] in (["${env}"], ["/usr/bin/env"]):
        words = words[1:]
        if words[:1] == ["-S"]:
            try:
                words = [*shlex.split(words[1] if len(words) > 1 else ""), *words[2:]]
            except ValueError as error:
                raise UserError(f"{path}: command {words[1]!r}: {str(error).lower()}") from None
    words = words[1:] if words[:1] == ["lcg"] else words[3:] if words[1:3] == ["-m", "lcg_lightning"] else []
    if words[:1] != ["test"] or words.count(_ARGS) != 1:
        raise UserError(f"{path}: command must run `lcg test` with {_ARGS} among its arguments (see configs/sweeps)")
    return [word if word == _ARGS else _filled(word, path) for word in words if not word.startswith(f"{_OUT}=")]


def _filled(word: str, path: Path) -> str:
    """A word with its environment variables."""

    def value(match: re.Match[str]) -> str:
        name = match[1].removeprefix("envvar:")
        if name not in os.environ:
            raise UserError(f"{path}: command takes ${{{match[1]}}}, which is not set; set it, or write its value")
        return os.environ[name]

    return re.sub(r"\$\{([\w:]+)\}", value, word)

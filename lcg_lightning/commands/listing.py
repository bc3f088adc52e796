"""The start of the help of ``lcg fit``, ``validate`` and ``test``: the classes that YAML can name."""

import inspect
from abc import ABCMeta
from collections.abc import Iterator

from lightning import LightningDataModule, LightningModule

from lcg_lightning.evaluation.tasks import Task
from lcg_lightning.methods.base import Method

_WIDTH = 100
_BASES = {
    "Models, --model": LightningModule,
    "Data, --data": LightningDataModule,
    "Tasks of an Evaluation, --model.init_args.task": Task,
    "Methods of an Evaluation, --model.init_args.method": Method,
}


def listing(stage: str) -> str:
    """Usage of a Lightning command, and the classes of this package that can be named."""
    lines = [f"lcg {stage} --config FILE [--config FILE ...] [options]", ""]
    for title, base in _BASES.items():
        lines.append(f"{title}:")
        for kind in sorted(_leaves(base), key=lambda kind: (kind.__module__, kind.__name__)):
            line = f"  {kind.__name__:<26}{(inspect.getdoc(kind) or '').splitlines()[0]}"
            lines.append(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 4]} ...")
        lines.append("")
    lines += [
        f"lcg {stage} --model.help LatentPrior lists the arguments of a model, and",
        f"lcg {stage} --model Evaluation --model.init_args.method.help LatentArithmetic those of a method.",
        "",
        "Any other class is named by its import path, such as mine.Mine for class Mine of mine.py in the current",
        "directory. A configuration can name any class, so it is code that you run: use those that you trust.",
    ]
    return "\n".join(lines)


def named() -> list[str]:
    """The names of all classes in the listing."""
    return [kind.__name__ for base in _BASES.values() for kind in _leaves(base)]


def _leaves(base: type) -> Iterator[type]:
    """Classes of this package derived from a base: those without subclasses; of an ABC, all that are not abstract."""
    found: list[type] = base.__subclasses__()
    for kind in found:
        yield from _leaves(kind)
    named = not found or (isinstance(base, ABCMeta) and not inspect.isabstract(base))
    if named and base.__module__.startswith("lcg_lightning.") and not base.__name__.startswith("_"):
        yield base

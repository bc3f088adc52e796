"""One-line messages for user errors: the innermost reason."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable

from lcg_lightning.errors import UserError

_CHECKERS = ("lightning.", "jsonargparse.")
"""Libraries whose own errors are about the user's input."""
_COMPLAINTS = (ValueError, TypeError, FileNotFoundError, ImportError)
_LONGEST = 400


def explain(error: BaseException, command: str) -> str | None:
    """The line that tells the user what is wrong and where; None if the user did not cause the error."""
    if mistake := _users(error):
        return str(mistake)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ArgumentError" in kinds:
        if file := _NOT_A_LOOP.search(str(error)):
            return f"{file[1]}: {file[2]} does not fit; give class_path and init_args that --{file[1]}.help CLASS lists"
        return f"{_innermost(str(error))}{_near_trainer(str(error))} (lcg {command} --help lists the options)"
    complaint = isinstance(error, _COMPLAINTS) and _raised_in(error, _CHECKERS)
    if "MisconfigurationException" in kinds or complaint:
        return f"{_short(str(error))} (LCG_TRACEBACK=1 shows where)"
    if "Connection closed by peer" in str(error):
        return "another process of this run has ended; see what it says (LCG_TRACEBACK=1 shows where this one was)"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror} (LCG_TRACEBACK=1 shows where)"
    return None


def _users(error: BaseException | None) -> UserError | None:
    """The UserError behind another error: configuration parsers and worker processes wrap the errors they catch."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _raised_in(error: BaseException, packages: tuple[str, ...]) -> bool:
    trace, name = error.__traceback__, ""
    while trace is not None:
        name, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return name.startswith(packages)


def _innermost(text: str) -> str:
    """The innermost reason in jsonargparse's indented message, after the option that it is about.

    >>> _innermost('''Parser key "trainer.max_epochs":
    ...   Does not validate against any of the Union subtypes
    ...   Subtypes: [<class 'int'>, <class 'NoneType'>]
    ...   Errors:
    ...     - Expected a <class 'int'>
    ...     - Expected a <class 'NoneType'>
    ...   Given value type: <class 'str'>
    ...   Given value: x''')
    'trainer.max_epochs: expected int, got x'
    """
    if not text.startswith("Parser key"):
        return _short(text)
    value = re.search(r"(?:Given value: |Got value: )(.*)", text)
    lines = [(len(line) - len(line.lstrip()), line.strip(" -")) for line in text.splitlines() if not _IDLE.match(line)]
    depth = max(depth for depth, _ in lines)
    first = [d for d, _ in lines].index(depth)
    reasons = [line for d, line in lines[first:] if d == depth]
    keys: list[str] = []
    owner = ""
    for above, line in reversed(lines[:first]):
        if above < depth:
            depth = above
            if key := re.match(r'Parser key "(.+)"', line):
                keys.insert(0, key[1])
            elif holder := re.match(r"Problem with given class_path '(.+)'", line):
                owner = owner or holder[1]
    where = ".".join(keys) + (f" ({owner.rpartition('.')[2]})" if owner else "")
    types = [_EXPECTED.match(reason) for reason in reasons]
    if all(types):
        names = [_type(t[1]) for t in types if t and "NoneType" not in t[1]]
        return _short(f"{where}: expected {' or '.join(names)}, got {value[1] if value else 'another value'}")
    odd = [reason for reason, t in zip(reasons, types, strict=True) if not t]
    reason = next((reason for reason in odd if reason.startswith(_NO_CLASS)), odd[0])
    return _short(f"{where}: {reason.replace(_NO_CLASS, 'no class is called ')}{_near(reason, owner)}")


_NO_CLASS = "Expected a dot import path string: "
_IDLE = re.compile(r"\s*$| *(Given value|Subtypes:|Subclass types expect|- a class path|- a dict )")
"""Lines without information about the reason."""
_NOT_A_LOOP = re.compile(r'"(\S+)":\s+Config file loop detected: (\S+) -> \2')
"""How jsonargparse tells of a file whose content does not fit, after it has tried to read it again."""
_EXPECTED = re.compile(r"Expected an? (<class .*?>|typing\.Literal\[.*?\]|[a-z.]+\[.*\])")


def _type(text: str) -> str:
    name = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", name)


def _near(reason: str, owner: str) -> str:
    """A hint at the class, or at the class's argument, that may have been meant."""
    if reason.startswith(_NO_CLASS):
        from lcg_lightning.commands.listing import named

        return _hint(reason.removeprefix(_NO_CLASS), named())
    wrong = re.match(r"Option '(\w+)' is not accepted", reason)
    if wrong is None:
        return ""
    module, _, name = owner.rpartition(".")
    options = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    return _hint(wrong[1], options)


def _near_trainer(text: str) -> str:
    """A hint at the Trainer's option that may have been meant, where a text refuses one."""
    wrong = re.search(r"(?:unrecognized arguments: --|does not accept option ')trainer\.(\w+)(?![\w.])", text)
    if wrong is None:
        return ""
    from lightning import Trainer

    return _hint(f"trainer.{wrong[1]}", [f"trainer.{name}" for name in inspect.signature(Trainer).parameters])


def _hint(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."

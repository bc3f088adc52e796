"""Networks from files that hold the program itself: TorchScript, torch.export and ONNX.

An ONNX file holds operators alone. A TorchScript file cannot run Python, and one that names operators which read or
write files is refused. torch.export's own loader can: it falls back to unrestricted pickles,
opens compiled libraries, and evaluates and compiles strings of its graph. So such a file is read only after a look
at its members and strings shows nothing but tensors and a graph of ATen operators.
"""

import hashlib
import json
import logging
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lcg_lightning.errors import UserError

_GRAPH = re.compile(r"(?:[^/]+/)?(?:models/model|serialized_exported_program)\.json")
_MEMBERS = re.compile(
    rf"""{_GRAPH.pattern}
    | (?:[^/]+/)? (?: (?:\.data/)? (?:archive_format|archive_version|version|byteorder|serialization_id)
        | data/(?:weights|constants)/(?:model_(?:weights|constants)_config\.json | (?:weight|tensor)_\d+ | model\.pt)
        | data/sample_inputs/model\.pt
        | serialized_(?:state_dict|constants|example_inputs)\.pt
        | extra(?:_files)?/.* )""",
    re.VERBOSE,
)
_TARGETS = re.compile(
    r"torch\.ops\.(?:aten|prims|torchvision)\.(?!from_file|save)(?:(?!\w*__)\w+)(?:\.(?!\w*__)\w+)?|torch\.sym_\w+|math\.\w+"
    r"|torch\.ops\.higher_order\.wrap_with_(?:set_grad_enabled|autocast)"
    r"|_operator\.(?:getitem|eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift|rshift)"
)
_SHAPES = re.compile(  # arithmetic of symbols, as SymPy prints it
    r"(?:L\['\w+'\]\.size\(\)\[\d+\]|\bSymbol\('\w+'|\b[A-Z](?!\w*__)\w*|\b[a-z]+\d+\b|\b[a-z]+=(?:True|False)\b"
    r"|\d+\b|[-+*/%<>=!(),\s])*"
)
_TREES = re.compile(
    r'(?:[\[\]{}:,\s\d]|null|"(?:type|context|null|\[\]|children_spec|builtins\.(?:tuple|list|dict))")*'
)
_PLAIN = re.compile(r"[\w.\-:+ ,>]*")
_STRINGS = {"target": _TARGETS, "expr_str": _SHAPES, "guards_code": _SHAPES, "in_spec": _TREES, "out_spec": _TREES}


class Program(nn.Module):
    """A frozen network from a file, from one tensor (B, ...) to one float32 tensor (B, ...).

    Always in evaluation mode. A torch.export program must be exported on the kind of device that it is to run on, where
    its graph makes tensors of its own. An ONNX program computes on the CPU, wherever its input is, and lets no
    gradient through. ``fingerprint`` is the first 16 hexadecimal digits of the file's sha256.

    Args:
        network: the loaded file.
        path: the file.
        batch: the only batch size it takes; any by default.
    """

    def __init__(self, network: nn.Module, path: Path, batch: int | None = None) -> None:
        super().__init__()
        self.network, self.path, self.batch = network, path, batch
        with path.open("rb") as file:
            self.fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """What the network makes of a batch.

        Raises:
            UserError: it takes another shape, or gives anything but one tensor of numbers a row.
        """
        if self.batch not in (None, len(x)):
            raise UserError(
                f"{self.path}: exported for batch {self.batch}, not {len(x)}; export it with a dynamic batch dimension"
            )
        try:
            out = self.network(x)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # each runtime has its own
            raise UserError(f"{self.path} refused an input of shape {tuple(x.shape)} ({_cause(error)})") from error
        if not isinstance(out, Tensor) or not out.is_floating_point() or out.shape[:1] != x.shape[:1]:
            found = f"{tuple(out.shape)} {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
            raise UserError(
                f"{self.path} gives {found} for {len(x)} inputs; export it to return one float tensor a row"
            )
        return out.float()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode; torch.export's modules refuse even to be told."""
        self.training = False
        return self


class _OnnxNetwork(nn.Module):
    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path}: ONNX files need onnxruntime; pip install 'lcg-lightning[onnx]'") from None
        data = path.read_bytes()
        if b"\n\x08location\x12" in data:
            raise UserError(f"{path} keeps its weights in another file; export it with external_data=False")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; they need not be printed as well
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
            found = f"{', '.join(i.type for i in inputs)} to {', '.join(o.type for o in outputs)}"
            raise UserError(f"{path} maps {found}; export it with one float32 input and one output")
        self.input = inputs[0].name
        batch = inputs[0].shape[0] if inputs[0].shape else None
        self.batch: int | None = batch if isinstance(batch, int) else None

    def forward(self, x: Tensor) -> Tensor:
        (out,) = self.session.run(None, {self.input: x.detach().float().cpu().contiguous().numpy()})
        return torch.from_numpy(out).to(x.device)


def program_kind(path: Path) -> Literal["torchscript", "exported", "onnx"] | None:
    """What kind of program a file holds, by its content; ONNX, which has no mark, by its suffix. None: no program."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return "onnx" if path.suffix.lower() == ".onnx" else None
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    return "exported" if any(_GRAPH.fullmatch(name) for name in names) else None


def load_program(path: Path) -> Program:
    """A frozen network, on the CPU, from a TorchScript, torch.export or ONNX file.

    Raises:
        UserError: no such file, none of the three, damaged, or one that would run code while it loads.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a TorchScript, torch.export or ONNX file")
    kind = program_kind(path)
    if kind is None:
        raise UserError(f"{path} is no whole TorchScript, torch.export (.pt2) or ONNX (.onnx) file; export it again")
    try:
        if kind == "onnx":
            network = _OnnxNetwork(path)
            return Program(network, path, network.batch)
        _refuse_damaged(path)
        return _load_script(path) if kind == "torchscript" else _load_exported(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(f"{path} cannot be loaded ({_cause(error)}); export it again") from error


def _load_script(path: Path) -> Program:
    with zipfile.ZipFile(path) as archive:
        code = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".py"))
    if touched := re.search(rb"\b(?:torch|aten|ops\.aten)\.(from_file|save)\b", code):
        raise UserError(
            f"refused to load {path}: it uses {touched[1].decode()}, which touches files; export it to ONNX"
        )
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return Program(torch.jit.load(path, map_location="cpu").eval(), path)  # type: ignore[no-untyped-call]


def _load_exported(path: Path) -> Program:
    _refuse_code(path)
    try:
        with _weights_only():
            program = torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise UserError(f"refused to load {path}: it holds pickled objects; export it again from tensors") from error
    (name,) = program.graph_signature.user_inputs
    (value,) = (node.meta["val"] for node in program.graph.nodes if node.name == name)
    batch = value.shape[0]
    return Program(program.module(), path, batch if isinstance(batch, int) else None)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Makes every torch.load refuse code, and keeps torch.export from logging what it then tries next."""
    level = logging.root.manager.disable
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    saved = {name: value for name in names if (value := os.environ.pop(name, None)) is not None}
    os.environ[names[0]] = "1"
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        del os.environ[names[0]]
        os.environ.update(saved)


def _refuse_damaged(path: Path) -> None:
    """Compares checksums, which torch's own reader does not."""
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise UserError(f"{path}: {broken} is damaged; export or fetch it again")


def _refuse_code(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        wrong = [n for n in names if names.count(n) > 1 or not _MEMBERS.fullmatch(n)]
        for name in filter(_GRAPH.fullmatch, names):
            wrong += _foreign(json.loads(archive.read(name)))
    if wrong:
        raise UserError(f"refused to load {path}: {wrong[0][:60]!r} could run code; export it to ONNX")


def _foreign(value: Any, key: str = "") -> Iterator[str]:
    """Strings of a graph that torch's loader would evaluate, compile or call, and that are more than arithmetic."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _foreign(name)
            if name != "metadata":
                yield from _foreign(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _foreign(item, key)
    elif isinstance(value, str) and not _STRINGS.get(key, _PLAIN).fullmatch(value):
        yield value


def _cause(error: Exception) -> str:
    """A message in one line: the last one where the runtime put its own traceback first."""
    lines = str(error).split("\n") if str(error).strip() else [type(error).__name__]
    kept = [line for line in lines if line.strip()][-1:] if "Traceback" in str(error) else lines
    return " ".join(" ".join(kept).split())[:200]

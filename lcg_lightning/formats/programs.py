"""Networks from files that hold the program itself: TorchScript, torch.export and ONNX.

Each format has its own safeguards, which ``trusted: true`` in the description turns off:

- ONNX holds only operators. The file is tried within a time limit.
- TorchScript cannot run Python, but it can loop forever and read and write files. A file that names operators for
  file access is refused; any other is tried in a separate process, within a time limit.
- torch.export's loader evaluates strings from the file as Python and falls back to unrestricted pickles, and no
  argument turns that off. Such a file is read only if it is trusted.
"""

import re
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.files import require_file, sha256

TIME_LIMIT = 120.0
"""Seconds within which an untrusted program must return its first output."""
_GRAPH = re.compile(r"(?:[^/]+/)?(?:models/[^/]+|serialized_exported_program)\.json")
_TRY = "import sys, torch; torch.jit.load(sys.argv[1], 'cpu').eval()(torch.zeros(*map(int, sys.argv[2:])))"
_ANSWERED: set[tuple[str, tuple[int, ...]]] = set()
"""(checksum, input shape) of the TorchScript files that this process has already tried."""


class Program(nn.Module):
    """A frozen network from a file, from one tensor (B, ...) to one float32 tensor (B, ...).

    It is always in evaluation mode. If a torch.export program's graph creates tensors, it must be exported on the kind
    of device that it will run on. An ONNX program always computes on the CPU and passes no gradients.
    ``fingerprint`` is the first 16 hexadecimal digits of the file's SHA-256.

    Args:
        network: the loaded file.
        path: the file.
        batch: the only batch size that it accepts; any by default.
    """

    def __init__(self, network: nn.Module, path: Path, batch: int | None = None) -> None:
        super().__init__()
        self.network, self.path, self.batch = network, path, batch
        self.fingerprint = sha256(path)[:16]
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for a batch.

        Raises:
            UserError: the network takes another shape, or returns anything other than one tensor with one row per
                input.
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
                f"{self.path} gives {found} for {len(x)} inputs; export it to return a float tensor, one row per input"
            )
        return out.float()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode; torch.export modules do not support ``train``."""
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
        options.log_severity_level = 4  # errors are raised, so there is no need to print them
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
            found = f"{', '.join(i.type for i in inputs)} to {', '.join(o.type for o in outputs)}"
            raise UserError(f"{path} maps {found}; export it with one float32 input and one output")
        self.input = inputs[0].name
        batch = inputs[0].shape[0] if inputs[0].shape else None
        self.batch: int | None = batch if isinstance(batch, int) else None
        self.run_options = onnxruntime.RunOptions()
        self.run_options.log_severity_level = 4

    def forward(self, x: Tensor) -> Tensor:
        (out,) = self.session.run(None, {self.input: x.detach().float().cpu().contiguous().numpy()}, self.run_options)
        return torch.from_numpy(out).to(x.device)

    def stop(self) -> None:
        """Ends a run in another thread."""
        self.run_options.terminate = True


def program_kind(path: Path) -> Literal["torchscript", "exported", "onnx"] | None:
    """The kind of program in a file, from its content (for ONNX, which has no signature, its suffix); None if none."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return "onnx" if path.suffix.lower() == ".onnx" else None
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    return "exported" if any(_GRAPH.fullmatch(name) for name in names) else None


def load_program(path: Path, shape: tuple[int, ...], trusted: bool = False) -> Program:
    """A frozen network, on the CPU, from a TorchScript, torch.export or ONNX file.

    Args:
        path: the file.
        shape: shape of an input (B, ...) for the trial run.
        trusted: the file may run code, so nothing is refused and no trial is run.

    Raises:
        UserError: the file is missing, damaged, of another kind, or needs to be trusted and is not.
    """
    require_file(path, "a TorchScript, torch.export or ONNX file")
    kind = program_kind(path)
    if kind is None:
        raise UserError(
            f"{path} is not a complete TorchScript, torch.export (.pt2) or ONNX (.onnx) file; export it again"
        )
    try:
        if kind == "onnx":
            return _load_onnx(path, shape, trusted)
        _refuse_damaged(path)
        return _load_script(path, shape, trusted) if kind == "torchscript" else _load_exported(path, trusted)
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(f"{path} cannot be loaded ({_cause(error)}); export it again") from error


def _load_onnx(path: Path, shape: tuple[int, ...], trusted: bool) -> Program:
    network = _OnnxNetwork(path)
    program = Program(network, path, network.batch)
    if not trusted and network.batch in (None, shape[0]):
        timer = threading.Timer(TIME_LIMIT, network.stop)
        timer.start()
        try:
            program(torch.zeros(shape))
        except UserError:
            if network.run_options.terminate:
                raise _too_slow(path) from None
            raise
        finally:
            timer.cancel()
    return program


def _load_script(path: Path, shape: tuple[int, ...], trusted: bool) -> Program:
    if not trusted:
        with zipfile.ZipFile(path) as archive:
            code = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".py"))
        if touched := re.search(rb"\b(?:from_file|save)\b", code):
            raise UserError(
                f"refused to load {path}: it names {touched[0].decode()}, which can touch other files; export it to "
                "ONNX, or set trusted: true if you trust its author"
            )
        _try_script(path, shape)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return Program(torch.jit.load(path, map_location="cpu").eval(), path)  # type: ignore[no-untyped-call]


def _try_script(path: Path, shape: tuple[int, ...]) -> None:
    """Loads and calls a TorchScript file in a separate process with a time limit, once per file content.

    Only timeouts and crashes are reported here; other errors occur again when the file is loaded in this process.
    """
    if (key := (sha256(path), shape)) in _ANSWERED:
        return
    command = [sys.executable, "-P", "-c", _TRY, str(path.absolute()), *map(str, shape)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise _too_slow(path) from None
    if done.returncode < 0:
        raise UserError(f"{path} ends the process that runs it (signal {-done.returncode}); export it again")
    _ANSWERED.add(key)


def _load_exported(path: Path, trusted: bool) -> Program:
    if not trusted:
        raise UserError(
            f"refused to load {path}: reading a torch.export file can run code that it holds; export it to ONNX, or "
            "set trusted: true if you trust its author"
        )
    program = torch.export.load(path)
    (name,) = program.graph_signature.user_inputs
    (value,) = (node.meta["val"] for node in program.graph.nodes if node.name == name)
    batch = value.shape[0]
    return Program(program.module(), path, batch if isinstance(batch, int) else None)


def _too_slow(path: Path) -> UserError:
    return UserError(
        f"{path} does not answer within {TIME_LIMIT:g} s, so it may never; set trusted: true if it is only slow"
    )


def _refuse_damaged(path: Path) -> None:
    """Checks the archive's checksums, which torch's reader does not."""
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise UserError(f"{path}: {broken} is damaged; export or fetch it again")


def _cause(error: Exception) -> str:
    """An error's message in one line: the last line if the runtime put its own traceback first."""
    lines = str(error).split("\n") if str(error).strip() else [type(error).__name__]
    kept = [line for line in lines if line.strip()][-1:] if "Traceback" in str(error) else lines
    return " ".join(" ".join(kept).split())[:200]

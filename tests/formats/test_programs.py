"""Programs of every format compute what the eager network computes; what could harm runs only where it is trusted."""

import io
import os
import sys
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save_model
from torch import nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats import programs
from lcg_lightning.formats.programs import load_program, program_kind
from lcg_lightning.generators.exported import ExportedGenerator

SHAPE = (5, 3, 8, 8)


class Tiny(nn.Module):
    """Images (B, 3, H, W) to probabilities (B, outputs): one filter each, averaged."""

    def __init__(self, outputs=4):
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3)

    def forward(self, x):
        return nn.functional.dropout(self.conv(x).relu(), 0.5, self.training).mean((2, 3)).softmax(1)


def script(network, path, x):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(network), path)


def exported(network, path, x, dynamic=True):
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=shapes), path)


def onnx(network, path, x, dynamic=True):
    """Tiny's graph, node by node: a file made without torch."""
    weights = {k: numpy_helper.from_array(v.numpy(), k) for k, v in network.conv.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Softmax", ["means"], ["out"], axis=1),
    ]
    batch = "batch" if dynamic else len(x)
    shapes = {"x": [batch, *x.shape[1:]], "out": [batch, network.conv.out_channels]}
    ends = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items()}
    graph = helper.make_graph(nodes, "tiny", [ends["x"]], [ends["out"]], list(weights.values()))
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


WRITERS = {"torchscript": script, "exported": exported, "onnx": onnx}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The network, images for it, and its file of each kind."""
    folder = tmp_path_factory.mktemp("programs")
    torch.manual_seed(0)
    network, x = Tiny().eval().requires_grad_(False), torch.randn(SHAPE)
    files = {"torchscript": folder / "net.bin", "exported": folder / "net", "onnx": folder / "net.onnx"}
    for kind, path in files.items():
        WRITERS[kind](network, path, x)
    return SimpleNamespace(network=network, x=x, files=files, expected=network(x))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_computes_what_the_network_does(tiny, kind):
    path = tiny.files[kind]
    assert program_kind(path) == kind
    program = load_program(path, SHAPE, trusted=kind == "exported").to("cpu").train()
    torch.testing.assert_close(program(tiny.x), tiny.expected)
    torch.testing.assert_close(program(tiny.x[:1]), tiny.expected[:1])
    assert not any(p.requires_grad for p in program.parameters())


def test_what_is_no_program_has_no_kind(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "words.txt").write_text("words")
    for name in ("state.pt", "words.txt", "missing.pt"):
        assert program_kind(tmp_path / name) is None
        with pytest.raises(UserError, match=r"^[^\n]*ONNX[^\n]*$"):
            load_program(tmp_path / name, SHAPE)


@pytest.mark.parametrize("kind", ["exported", "onnx"])
def test_another_batch_than_exported_for_is_one_line(tiny, kind, tmp_path):
    path = tmp_path / "fixed.onnx"
    WRITERS[kind](tiny.network, path, tiny.x, dynamic=False)
    program = load_program(path, SHAPE, trusted=kind == "exported")
    torch.testing.assert_close(program(tiny.x), tiny.expected)
    with pytest.raises(UserError, match=r"exported for batch 5, not 2; export it with a dynamic batch dimension$"):
        program(tiny.x[:2])


@pytest.mark.parametrize("kind", WRITERS)
def test_wrong_shape_is_one_line(tiny, kind):
    with pytest.raises(UserError, match=r"^[^\n]*refused an input of shape \(5, 2, 8, 8\)[^\n]*$"):
        load_program(tiny.files[kind], SHAPE, trusted=kind == "exported")(tiny.x[:, :2])


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files_are_one_line(tiny, kind, tmp_path):
    data = bytearray(tiny.files[kind].read_bytes())
    path = tmp_path / "broken.onnx"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"^[^\n]*export it again$"):
        load_program(path, SHAPE)
    if kind != "onnx":  # which has no checksums
        at = bytes(data).index(tiny.network.conv.weight.numpy().tobytes())
        data[at + 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"^[^\n]*is damaged[^\n]*$"):
            load_program(path, SHAPE)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_exported_file_is_read_only_where_it_is_trusted(tiny, tmp_path):
    """torch's own loader runs what stands in the place of the example inputs; ours does not call it untold."""
    written, path, trap = tmp_path / "written", tmp_path / "trap.pt2", io.BytesIO()
    torch.save(((Bomb(written),), {}), trap)
    with zipfile.ZipFile(tiny.files["exported"]) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, trap.getvalue() if name.endswith("sample_inputs/model.pt") else old.read(name))
    for file in (path, tiny.files["exported"]):
        with pytest.raises(UserError, match=r"^refused to load [^\n]*trusted: true[^\n]*$"):
            load_program(file, SHAPE)
    assert not written.exists()
    load_program(path, SHAPE, trusted=True)
    assert written.exists()


class Looping(nn.Module):
    """Answers nothing but zeros in a finite time."""

    def forward(self, x):
        while x.max() >= 0:
            x = x * 0
        return x


class LoopingWhenRead(nn.Module):
    @torch.jit.export
    def __getstate__(self):
        return 1

    @torch.jit.export
    def __setstate__(self, state: int):
        while state > 0:
            state = 1
        self.training = False

    def forward(self, x):
        return x


@pytest.mark.parametrize("network", [Looping, LoopingWhenRead])
def test_a_script_that_never_answers_is_stopped(network, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "TIME_LIMIT", 2.0)
    script(network(), tmp_path / "net.pt", None)
    with pytest.raises(UserError, match=r"^\S*net\.pt does not answer within 2 s[^\n]*trusted: true[^\n]*$"):
        load_program(tmp_path / "net.pt", SHAPE)


def test_an_onnx_loop_that_never_answers_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "TIME_LIMIT", 1.0)

    def value(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["go"]), helper.make_node("Neg", ["y"], ["z"])],
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
        [value("go", TensorProto.BOOL, []), value("z", TensorProto.FLOAT, None)],
    )
    true = numpy_helper.from_array(np.array(True), "true")
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "true", "x"], ["out"], body=body)],
        "loop",
        [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value("out", TensorProto.FLOAT, ["batch", 4])],
        [true],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    save_model(model, tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"^\S*net\.onnx does not answer within 1 s[^\n]*$"):
        load_program(tmp_path / "net.onnx", (2, 4))


def test_a_pipe_a_device_and_a_looping_link_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "link.onnx").symlink_to("link.onnx")
    for path in (tmp_path / "pipe.onnx", tmp_path / "link.onnx", Path("/dev/zero"), tmp_path / ("a" * 300)):
        with pytest.raises(UserError, match=rf"^{path} [^\n]*ONNX file$"):
            load_program(path, SHAPE)


def test_onnx_without_onnxruntime_names_the_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'lcg-lightning\[onnx\]'"):
        load_program(tiny.files["onnx"], SHAPE)


class Painter(nn.Module):
    """Latents (B, 4) to images (B, 3, 2, 2) in about [0, 255]."""

    def forward(self, z):
        return (z * 255)[:, None, :].expand(-1, 3, -1).unflatten(2, (2, 2))


class Viewer(nn.Module):
    """The inverse, from images in [-1, 1]."""

    def forward(self, images):
        return (images.mean(1).flatten(1) + 1) / 2


def test_generator_from_programs(tmp_path):
    exported(Painter(), tmp_path / "painter.pt2", torch.rand(3, 4))
    script(Viewer().eval(), tmp_path / "viewer.pt", None)
    painter = load_program(tmp_path / "painter.pt2", (2, 4), trusted=True)
    viewer = load_program(tmp_path / "viewer.pt", (2, 3, 2, 2), trusted=True)
    generator = ExportedGenerator(painter, (4,), (0.0, 255.0), normal=True, encoder=viewer)
    latents = torch.tensor([[0.0, 0.25, 1.0, 7.0]])
    expected = torch.tensor([[-1.0, -0.5], [1.0, 1.0]]).expand(1, 3, 2, 2)
    torch.testing.assert_close(generator.decode(latents), expected)
    torch.testing.assert_close(generator.encode(expected), latents.clamp(0, 1))
    assert generator.image_size == 2

    def draw():
        return generator.sample_latents(2000, torch.Generator().manual_seed(0))

    assert abs(draw().mean()) < 0.05
    assert abs(draw().std() - 1) < 0.05
    assert torch.equal(draw(), draw())
    assert generator.train().fingerprint == ExportedGenerator(painter, (4,), (0.0, 255.0)).fingerprint
    assert generator.fingerprint != ExportedGenerator(painter, (4,), (0.0, 1.0)).fingerprint
    with pytest.raises(UserError, match="cannot sample latents"):
        ExportedGenerator(painter, (4,)).sample_latents(1, torch.Generator())
    with pytest.raises(UserError, match=r"gives \(4,\) for one latent; it must give an image \(3, S, S\)$"):
        ExportedGenerator(viewer, (3, 2, 2))
    script(nn.Flatten(), tmp_path / "flatten.pt", None)
    with pytest.raises(UserError, match=r"gives \(12,\) for one image, not a latent \(4,\)$"):
        ExportedGenerator(painter, (4,), encoder=load_program(tmp_path / "flatten.pt", (2, 3, 2, 2), trusted=True))


class Toucher(nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x):
        return x + torch.from_file(self.path, True, 4).sum()


def test_a_script_that_touches_files_is_refused(tmp_path):
    script(Toucher(str(tmp_path / "touched")), tmp_path / "net.pt", None)
    with pytest.raises(UserError, match=r"refused to load \S*net\.pt: it names from_file"):
        load_program(tmp_path / "net.pt", (2, 4))
    assert not (tmp_path / "touched").exists()
    load_program(tmp_path / "net.pt", (2, 4), trusted=True)

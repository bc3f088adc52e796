"""Programs of every format compute what the eager network computes, and no file runs code while it loads."""

import io
import json
import pickle
import sys
import warnings
import zipfile
from types import SimpleNamespace

import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save_model
from torch import nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats.programs import load_program, program_kind
from lcg_lightning.generators.exported import ExportedGenerator


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
    network, x = Tiny().eval().requires_grad_(False), torch.randn(5, 3, 8, 8)
    files = {"torchscript": folder / "net.bin", "exported": folder / "net", "onnx": folder / "net.onnx"}
    for kind, path in files.items():
        WRITERS[kind](network, path, x)
    return SimpleNamespace(network=network, x=x, files=files, expected=network(x))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_computes_what_the_network_does(tiny, kind):
    path = tiny.files[kind]
    assert program_kind(path) == kind
    program = load_program(path).to("cpu").train()
    torch.testing.assert_close(program(tiny.x), tiny.expected)
    torch.testing.assert_close(program(tiny.x[:1]), tiny.expected[:1])
    assert not any(p.requires_grad for p in program.parameters())


def test_what_is_no_program_has_no_kind(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "words.txt").write_text("words")
    for name in ("state.pt", "words.txt", "missing.pt"):
        assert program_kind(tmp_path / name) is None
        with pytest.raises(UserError, match=r"^[^\n]*ONNX[^\n]*$"):
            load_program(tmp_path / name)


@pytest.mark.parametrize("kind", ["exported", "onnx"])
def test_another_batch_than_exported_for_is_one_line(tiny, kind, tmp_path):
    path = tmp_path / "fixed.onnx"
    WRITERS[kind](tiny.network, path, tiny.x, dynamic=False)
    program = load_program(path)
    torch.testing.assert_close(program(tiny.x), tiny.expected)
    with pytest.raises(UserError, match=r"exported for batch 5, not 2; export it with a dynamic batch dimension$"):
        program(tiny.x[:2])


@pytest.mark.parametrize("kind", WRITERS)
def test_wrong_shape_is_one_line(tiny, kind):
    with pytest.raises(UserError, match=r"^[^\n]*refused an input of shape \(5, 2, 8, 8\)[^\n]*$"):
        load_program(tiny.files[kind])(tiny.x[:, :2])


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files_are_one_line(tiny, kind, tmp_path):
    data = bytearray(tiny.files[kind].read_bytes())
    path = tmp_path / "broken.onnx"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"^[^\n]*export it again$"):
        load_program(path)
    if kind != "onnx":  # which has no checksums
        at = bytes(data).index(tiny.network.conv.weight.numpy().tobytes())
        data[at + 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"^[^\n]*is damaged[^\n]*$"):
            load_program(path)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def traps(written):
    """Ways to run code that torch.export.load offers: name -> (suffix of a member to edit, edit, members to add)."""
    call = f"open({'+'.join(f'chr({ord(c)})' for c in str(written))},chr(119))"
    opaque = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}

    def graph(edit):
        def edited(data):
            model = json.loads(data)
            edit(model)
            return json.dumps(model).encode()

        return edited

    def call_python(model):
        node = model["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.serialization.os.system"
        node["inputs"] = [{"name": "command", "arg": {"as_string": f"touch {written}"}, "kind": 1}]

    return {
        "example inputs": ("sample_inputs/model.pt", lambda _: saved(((Bomb(written),), {})), {}),
        "opaque constant": (
            "model_constants_config.json",
            lambda _: json.dumps({"config": {"c": opaque}}).encode(),
            {"data/constants/opaque_obj_0": pickle.dumps(Bomb(written))},
        ),
        "shape expression": (
            "models/model.json",
            lambda data: data.replace(b"Symbol('", call.encode() + b" or Symbol('"),
            {},
        ),
        "name in a shape expression": (
            "models/model.json",
            lambda data: data.replace(b"Symbol('", b"S('open')('written','w')*Symbol('"),
            {},
        ),
        "placeholder": ("models/model.json", lambda data: data.replace(b'"x"', f'"x={call}"'.encode()), {}),
        "operator": ("models/model.json", graph(call_python), {}),
        "library": ("archive_format", lambda data: data, {"data/aotinductor/model/model.so": b""}),
    }


@pytest.mark.parametrize("trap", traps(""))
def test_exported_file_that_would_run_code_is_refused(tiny, trap, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.chdir(tmp_path)
    written, path = tmp_path / "written", tmp_path / "trap.pt2"
    member, edit, added = traps(written)[trap]
    with zipfile.ZipFile(tiny.files["exported"]) as old, zipfile.ZipFile(path, "w") as new:
        names = old.namelist()
        for name in names:
            new.writestr(name, edit(old.read(name)) if name.endswith(member) else old.read(name))
        for name, data in added.items():
            new.writestr(f"{names[0].split('/')[0]}/{name}", data)
    with pytest.raises(UserError, match=r"^refused to load [^\n]*$"):
        load_program(path)(tiny.x)
    assert not written.exists()


def test_onnx_without_onnxruntime_names_the_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'lcg-lightning\[onnx\]'"):
        load_program(tiny.files["onnx"])


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
    painter, viewer = load_program(tmp_path / "painter.pt2"), load_program(tmp_path / "viewer.pt")
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
        ExportedGenerator(painter, (4,), encoder=load_program(tmp_path / "flatten.pt"))


class Toucher(nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x):
        return x + torch.from_file(self.path, True, 4).sum()


def test_a_script_that_touches_files_is_refused(tmp_path):
    script(Toucher(str(tmp_path / "touched")), tmp_path / "net.pt", None)
    with pytest.raises(UserError, match=r"refused to load \S*net\.pt: it uses from_file"):
        load_program(tmp_path / "net.pt")
    assert not (tmp_path / "touched").exists()

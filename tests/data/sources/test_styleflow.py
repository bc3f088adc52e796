import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lcg_lightning.attributes import Attribute
from lcg_lightning.data.sources.styleflow import LACE, LACE_ATTRIBUTES, StyleFlow
from lcg_lightning.errors import UserError
from tests.conftest import SHARED, needs

REAL = SHARED / "data/styleflow"
W, LAYERS = 4, 3
NAN = float("nan")


def dump(path: Path, data) -> Path:
    path.write_bytes(pickle.dumps(data))
    return path


def save(path: Path, array) -> Path:
    np.save(path, array)
    return path


def latents(n: int, *, plus: bool = False) -> np.ndarray:
    """Rows of w (n, 1, LAYERS, W), one for all layers or, in W+, one for each."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((n, 1, LAYERS if plus else 1, W), dtype=np.float32)
    return np.broadcast_to(w, (n, 1, LAYERS, W)).copy()


def styleflow(folder: Path, n: int = 20, *, plus: bool = True, light: bool = False, **change) -> StyleFlow:
    rng = np.random.default_rng(1)
    parts = {"w": {"Latent": list(latents(n, plus=plus))}, "attributes": rng.random((n, 8, 1)).round()} | change
    lights = save(folder / "light.npy", rng.random((n, 1, 9, 1, 1), dtype=np.float32)) if light else None
    return StyleFlow(
        dump(folder / "w.pickle", parts["w"]), save(folder / "attributes.npy", parts["attributes"]), lights
    )


@needs("data/styleflow")
def test_published_labels(tmp_path):
    pickled = dump(tmp_path / "sg2latents.pickle", {"Latent": [np.zeros((1, 18, 2), np.float32) for _ in range(1000)]})
    data = StyleFlow(pickled, REAL / "attributes.npy", REAL / "light.npy").read((18, 2))
    assert (data.latents.shape, data.labels.shape, data.ids[-1]) == ((1000, 18, 2), (1000, 17), "00999")
    mean = dict(zip(data.schema.names, data.labels.mean(0).tolist(), strict=True))
    expected = {"Male": 0.433, "Eyeglasses": 0.168, "Age": 30.541, "Smiling": 0.7433, "Yaw": -0.0393, "Pitch": -2.9381}
    for name, value in expected.items():
        assert mean[name] == pytest.approx(value, abs=5e-4)
    light = np.load(REAL / "light.npy")
    np.testing.assert_array_equal(data.labels[:, 8:].numpy(), light[:, 0, :, 0, 0])
    beard, male, glasses, age = (data.labels[:, data.schema.index(n)] for n in ("Beard", "Male", "Eyeglasses", "Age"))
    assert torch.corrcoef(torch.stack([male, beard]))[0, 1] == pytest.approx(0.63, abs=0.005)
    assert torch.corrcoef(torch.stack([glasses, age]))[0, 1] == pytest.approx(0.36, abs=0.005)


def test_styleflow_latents_fit_the_space_of_the_generator(tmp_path):
    data = styleflow(tmp_path, light=True).read((LAYERS, W))
    np.testing.assert_array_equal(data.latents.numpy(), latents(20, plus=True)[:, 0])
    assert data.schema.names[:2] + data.schema.names[-2:] == ("Male", "Eyeglasses", "Light7", "Light8")
    assert data.splits == ["train"] * 17 + ["val"] + ["test"] * 2
    shared = styleflow(tmp_path, plus=False).read((W,))
    np.testing.assert_array_equal(shared.latents.numpy(), latents(20)[:, 0, 0])
    assert styleflow(tmp_path, plus=False).read((LAYERS, W)).latents.shape == (20, LAYERS, W)


FFHQ = dict(zip(("width", "height", "smile", "pitch", "roll", "yaw", "gender", "age", "beard"), range(9), strict=True))


def lace(folder: Path, rows: list[dict[int, float | None]], attributes=None, **change) -> LACE:
    table = np.full((len(rows), 21), None, dtype=object)
    for row, cells in enumerate(rows):
        for column, value in cells.items():
            table[row, column] = value
    parts = {"w": {"Latent": latents(len(rows))}, "labels": {"att_light": [table]}} | change
    return LACE(dump(folder / "w.pickle", parts["w"]), dump(folder / "att_light.pickle", parts["labels"]), attributes)


def test_lace_columns_gender_beard_and_missing_labels(tmp_path):
    rows = [
        {FFHQ["gender"]: 0, FFHQ["beard"]: 0.1, FFHQ["yaw"]: 0.3, FFHQ["smile"]: 1, 9: 1, 10: 0.7, 15: 0.6},
        {FFHQ["gender"]: 1, FFHQ["beard"]: 0.4, FFHQ["age"]: 0.25, 12: 1.1},
    ]
    data = lace(tmp_path, rows).read((W,))
    assert data.schema.attributes == LACE_ATTRIBUTES
    expected = {
        "Male": [1, 0],
        "Eyeglasses": [1, NAN],
        "Smiling": [1, NAN],
        "Beard": [0, 1],
        "Yaw": [0.3, NAN],
        "Pitch": [NAN, NAN],
        "Age": [NAN, 0.25],
        "Bald": [0.7, NAN],
        "Width": [NAN, NAN],
        "Light0": [NAN, 1.0],  # 1.1, moved to the end
        "Light3": [0.6, NAN],
    }
    table = torch.tensor([expected[name] for name in data.schema.names]).T
    torch.testing.assert_close(data.labels, table, rtol=0, atol=0, equal_nan=True)
    own = [Attribute("age", "continuous", low=0, high=100), Attribute("beard", "continuous")]
    data = lace(tmp_path, [{7: 44, 8: 0.4}], own).read((W,))
    assert (data.schema.names, data.labels.tolist()) == (("Age", "Beard"), [[44, pytest.approx(0.4)]])


def test_lace_splits_are_the_published_ones(tmp_path):
    small = np.zeros((10000, 1, 1, 1), np.float32)
    splits = lace(tmp_path, [{}] * 10000, w={"Latent": small}).read((1,)).splits
    assert splits == ["train"] * 8500 + ["val"] * 500 + ["test"] * 1000


@pytest.mark.parametrize(("n", "test"), [(5650, 650), (40, 4)])
def test_metfaces_layout(tmp_path, n, test):
    names = [
        "Yaw",
        "Light3",
        "Smiling",
        "Male",
        "Age",
        "Eyeglasses",
        "Pitch",
        "Hair",
        "Beard",
        "Bald",
        "Light0",
        "Width",
    ]
    table = np.tile(np.float32([0.1, 0.2, 1, 1, 0.4, 0, 0.5, 3, 1, 0.6, 0.7, 0.8]), (n, 1))
    w = dump(tmp_path / "w.pickle", {"ws_latent": [latents(n)[:, 0]]})
    data = LACE(w, dump(tmp_path / "pred.pickle", {"pred": [table]})).read((W,))
    np.testing.assert_array_equal(data.latents.numpy(), latents(n)[:, 0, 0])
    for name, column in zip(data.schema.names, data.labels.T, strict=True):
        assert (column == (0 if name == "Male" else float(table[0, names.index(name)]))).all()
    assert (data.splits.count("test"), data.splits[-test]) == (test, "test")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


ARRAY = np.empty((20, 8, 1))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda f: styleflow(f).read((W,)), r"w.pickle: these are W\+ latents.*load the generator with space: w\+"),
        (
            lambda f: styleflow(f, w={"Latent": latents(20)[:, 0, 0]}).read((LAYERS, W)),
            "w.pickle: these are W latents.*load the generator with space: w$",
        ),
        (lambda f: styleflow(f).read((LAYERS, 8)), r"holds latents \(3, 4\), the generator takes \(3, 8\)"),
        (lambda f: styleflow(f).read((14, W)), r"holds latents \(3, 4\), the generator takes \(14, 4\)"),
        (lambda f: styleflow(f).read((8,)), r"the generator takes \(8,\)"),
        (lambda f: styleflow(f, w={"Latent": list(latents(19))}).read((LAYERS, W)), "w.pickle has 19 rows and .* 20;"),
        (lambda f: styleflow(f, light=True, attributes=ARRAY[:9]).read((W,)), "npy has 9 rows and .*light.npy 20"),
        (lambda f: styleflow(f, attributes=ARRAY[:, :7]).read((W,)), r"npy holds \(20, 7, 1\), not 8 numbers a row"),
        (lambda f: styleflow(f, attributes=np.array([Bomb()])).read((W,)), "attributes.npy cannot be read as a .npy"),
        (lambda f: StyleFlow(f, f / "no.npy").read((W,)), r"no.npy cannot be read .*\(No such file or directory\)"),
        (lambda f: styleflow(f, w={"Latent": [[1.0], [1.0, 2.0]]}).read((W,)), "holds something other than an array"),
        (lambda f: styleflow(f, w=[1]).read((W,)), "w.pickle holds no Latent"),
        (lambda f: styleflow(f, w={"Latent": Bomb()}).read((W,)), "w.pickle: refused to load posix.mkdir"),
        (lambda f: lace(f, [{}], w={"Latent": Bomb()}).read((W,)), "w.pickle: refused to load posix.mkdir"),
        (lambda f: lace(f, [{}], labels={"att_light": [Bomb()]}).read((W,)), "att_light.pickle: refused to load"),
        (lambda f: lace(f, [{}], labels={"pred": [ARRAY]}).read((W,)), "att_light.pickle holds no att_light"),
        (lambda f: lace(f, [{}], labels={"att_light": []}).read((W,)), "holds no list of arrays"),
        (
            lambda f: lace(f, [{}], labels={"att_light": [ARRAY[:, :, 0]]}).read((W,)),
            r"labels \(20, 8\), not \(rows, 21",
        ),
        (lambda f: lace(f, [{2: "yes"}]).read((W,)), "something other than an array of numbers"),
        (lambda f: lace(f, [{7: 44}]).read((W,)), r"Age of 00000 is 44, not a number in \[0, 1\]"),
        (lambda f: lace(f, [{}], [Attribute("Gender")]).read((W,)), "att_light.pickle: unknown attribute 'Gender'"),
    ],
)
def test_bad_input_is_one_clear_line_and_runs_nothing(tmp_path, monkeypatch, action, message):
    monkeypatch.setenv("BOMB", str(tmp_path / "ran"))
    with pytest.raises(UserError, match=message) as error:
        action(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()

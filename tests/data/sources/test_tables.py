import json
import math
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.sources.tables import Column, ImageTable
from lcg_lightning.errors import UserError
from tests.data.test_images import faces, write_lmdb

SMILE = Column("Smiling", "continuous", column="smile")
MALE = Column("Male", column="gender", values={"female": 0, "male": 1})
HAIR = Column("Hair", "categorical", ("black", "brown", "red"), column="hair", values={"ginger": 2})
AGE = Column("age", "continuous", low=0, high=100)
CSV = """file,smile,gender,hair,age
b.png,0.25,male,red,31.5
c.png,,female,black,60
a.png, 1 ,male,ginger,
z.png,0.5,male,red,20
"""
NAN = math.nan


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


def read(images, text=CSV, columns=(SMILE, MALE, HAIR, AGE), name="table.csv", **options):
    table = images.parent / name
    table.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return ImageTable(images, table, list(columns), **options).read()


def same(labels, expected):
    torch.testing.assert_close(labels, torch.tensor(expected), rtol=0, atol=0, equal_nan=True)


def test_csv(images):
    found = read(images)
    assert found.ids == ["a", "b", "c"]
    assert [path.name for path in found.paths] == ["a.png", "b.png", "c.png"]
    same(found.labels, [[1, 1, 2, NAN], [0.25, 1, 2, 31.5], [NAN, 0, 0, 60]])
    assert found.schema == AttributeSchema(
        (
            Attribute("Smiling", "continuous"),
            Attribute("Male"),
            Attribute("Hair", "categorical", ("black", "brown", "red")),
            Attribute("age", "continuous", low=0, high=100),
        )
    )
    assert {type(attribute) for attribute in found.schema} == {Attribute}
    assert found.splits is None
    turned = "\ufeff" + "\n".join(",".join(reversed(line.split(","))) for line in CSV.splitlines())
    assert torch.equal(read(images, turned, [MALE, HAIR], key="file").labels, found.labels[:, 1:3])


def test_json_by_name_and_in_a_list(images):
    records = {
        "a.png": {"smile": 1, "who": {"gender": "male", "glasses": True}},
        "b.png": {"smile": None, "who": {"gender": "female", "glasses": False}},
        "c.png": [],
        "z.png": {"smile": 7},
    }
    columns = [SMILE, Column("Male", column="who.gender", values=MALE.values), Column("G", column="who.glasses")]
    expected = [[1, 1, 1], [NAN, 0, 0], [NAN] * 3]
    same(read(images, records, columns, "table.json").labels, expected)
    listed = [{"image": name, **(record or {})} for name, record in records.items()]
    same(read(images, listed, columns, "table.json", key="image").labels, expected)


def ffhq(smile: float, gender: str, yaw: float):
    return [{"faceAttributes": {"smile": smile, "gender": gender, "headPose": {"yaw": yaw}}}]


def test_a_json_file_for_each_image_and_an_lmdb(tmp_path):
    (tmp_path / "json").mkdir()
    for name, record in {"00000": ffhq(0.5, "male", -3.5), "00001": [], "00003": ffhq(1, "female", 8)}.items():
        (tmp_path / f"json/{name}.json").write_text(json.dumps(record))
    columns = [
        Column("Smiling", "continuous", column="faceAttributes.smile"),
        Column("Male", column="faceAttributes.gender", values=MALE.values),
        Column("Yaw", "continuous", low=-90, high=90, column="faceAttributes.headPose.yaw"),
    ]
    images = write_lmdb(tmp_path / "faces", faces(3, 4))
    (tmp_path / "splits.txt").write_text("2 2\n1 1\n0 0\n")
    data = ImageTable(images, tmp_path / "json", columns, partition=tmp_path / "splits.txt")
    found = data.read()
    assert [ref.key for ref in found.paths] == ["4-00000", "4-00001", "4-00002"]
    same(found.labels, [[0.5, 1, -3.5], [NAN] * 3, [NAN] * 3])
    assert found.splits == ["train", "val", "test"]
    assert json.loads(json.dumps(data.config)) == data.config
    assert data.config["table"] == str(tmp_path / "json")
    with pytest.raises(UserError, match="leave out key"):
        ImageTable(images, tmp_path / "json", columns, key="x").read()


def pipe(path):
    """A pipe that nobody writes to."""
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda i: read(i, CSV.replace("female", "woman")),
            "line 3: gender is 'woman', not a number or one of female, ",
        ),
        (lambda i: read(i, CSV.replace("60", "old")), "table.csv line 3: age is 'old', not a number; say in `values`"),
        (lambda i: read(i, CSV.replace("black", "blue")), "hair is 'blue', .* one of black, brown, red, ginger"),
        (lambda i: read(i, CSV.replace("31.5", "131")), "age of b is 131, not a number in"),
        (lambda i: read(i, CSV.replace("c.png", "d.png")), "1 images of .* no row in .*table.csv; add one.*first: c"),
        (lambda i: read(i, CSV.replace(".png", "x.png")), "none of its 4 rows names an image"),
        (lambda i: read(i, CSV.replace("c.png", "b.png")), "rows b and b both name image b"),
        (lambda i: read(i, CSV.replace("red,31.5", "red")), "table.csv line 2: 4 cells, but the header has 5"),
        (lambda i: read(i, columns=[Column("Smile ")]), r"no row has Smile  \(there are: file, smile, gender, hair, "),
        (lambda i: read(i, key="name"), r"line 1: no column name \(there are: file, "),
        (lambda i: read(i, ""), "table.csv is empty"),
        (lambda i: read(i, columns=[]), "no columns"),
        (lambda i: read(i, name="table.xlsx"), "neither a .csv or .json"),
        (lambda i: read(i, "{", name="t.json"), "t.json cannot be read as JSON"),
        (lambda i: read(i, "3", name="t.json"), "holds neither records"),
        (lambda i: read(i, [{"smile": 1}], name="t.json"), "record 1: no image name; say in `key`"),
        (lambda i: read(i, [{"smile": 1}], name="t.json", key="id"), "record 1: no entry id"),
        (lambda i: read(i, {"a": 3}, name="t.json"), "record a: expected a record"),
        (lambda i: read(i, {"a": {}}, name="t.json", key="id"), "leave out key"),
        (
            lambda i: read(i, {n: {"face": {"smile": 1}} for n in "abc"}, [SMILE], name="t.json"),
            r"no row has smile \(there are: face.smile\)",
        ),
        (
            lambda i: read(i, CSV.replace("gender", "smile")),
            "table.csv line 1: two columns are named smile and smile; rename",
        ),
        (lambda i: read(i, CSV.replace("age", "Smile")), "table.csv line 1: two columns are named smile and Smile"),
        (lambda i: read(i, '{"a": {"smile": 1, "smile": 2}}', [SMILE], "t.json"), "the key 'smile' is given twice"),
        (lambda i: read(i, '{"a": {}, "b": {}, "a": {}}', [SMILE], "t.json"), "the key 'a' is given twice"),
        (
            lambda i: read(i, {n: {"face": {"smile": 1, "Smile": 0}} for n in "abc"}, [SMILE], "t.json"),
            "t.json record a: two columns are named smile and Smile",
        ),
        (lambda i: ImageTable(i, pipe(i.parent / "t.csv"), [SMILE]).read(), "t.csv is not a regular file"),
        (lambda i: ImageTable(i, pipe(i.parent / "t.json"), [SMILE]).read(), "t.json is not a regular file"),
        (lambda i: ImageTable(i, Path("no.csv"), [SMILE]).read(), "no.csv cannot be read .No such"),
    ],
)
def test_bad_input_is_one_clear_line(images, action, message):
    with pytest.raises(UserError, match=message) as error:
        action(images)
    assert "\n" not in str(error.value)

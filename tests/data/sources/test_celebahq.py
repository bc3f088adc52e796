from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcg_lightning.attributes import Attribute
from lcg_lightning.data.annotated import AnnotatedImages
from lcg_lightning.data.images import ImageFiles
from lcg_lightning.data.sources.annotations import read_splits, write_attributes, write_measures, write_splits
from lcg_lightning.data.sources.celebahq import CelebAHQ
from lcg_lightning.errors import UserError
from tests.conftest import SHARED, needs
from tests.data.test_images import faces, write_lmdb

REAL = SHARED / "data/celebahq"
YAW = Attribute("Yaw", "continuous", low=-90, high=90)


@needs("data/celebahq")
def test_published_annotations(tmp_path):
    for i in range(30000):
        (tmp_path / f"{i}.jpg").touch()
    attributes, pose = REAL / "CelebAMask-HQ-attribute-anno.txt", REAL / "CelebAMask-HQ-pose-anno.txt"
    angles = [Attribute(name, "continuous", low=-180, high=180) for name in ("Yaw", "Pitch", "Raw")]
    images = CelebAHQ(tmp_path, attributes, measure_files=[pose], measures=angles).read()
    assert (images.labels.shape, len(images.schema)) == ((30000, 43), 43)
    assert [p.stem for p in images.paths] == images.ids == [str(i) for i in range(30000)]
    table = np.loadtxt(attributes, skiprows=2, usecols=range(1, 41))
    np.testing.assert_array_equal(images.labels[:, :40].numpy(), (table + 1) / 2)
    words = [line.split() for line in attributes.read_text().splitlines()[1:]]
    for name in ("Smiling", "Male", "Eyeglasses"):
        count = sum(row[1 + words[0].index(name)] == "1" for row in words[1:])
        assert int(images.labels[:, images.schema.index(name)].sum()) == count
    raw = pose.read_text().splitlines()
    for row in (0, 1, 777, 29999):
        expected = torch.tensor([float(word) for word in raw[row + 2].split()[1:]])
        assert torch.equal(images.labels[row, 40:], expected)


@pytest.fixture
def world(tmp_path):
    """Three images, all .png, with annotations that call them .jpg."""
    (tmp_path / "images").mkdir()
    for i, value in enumerate((0, 100, 255)):
        Image.new("RGB", (4, 4), (value, i, 0)).save(tmp_path / "images" / f"{i}.png")
    names = ["2.jpg", "0.jpg", "1.jpg"]
    labels = torch.tensor([[1.0, 0], [0, 0], [1, 1]])
    write_attributes(tmp_path / "attributes.txt", ["Smiling", "Eyeglasses"], names, labels)
    angles = torch.tensor([[1 / 3, 1e-7], [-89.5, 2], [0, 3]])
    write_measures(tmp_path / "pose.txt", ["Yaw", "Pitch"], names, angles)
    write_splits(tmp_path / "splits.txt", names, ["test", "train", "val"])
    return tmp_path


def read(world, **options) -> AnnotatedImages:
    return CelebAHQ(world / "images", world / "attributes.txt", **options).read()


def test_what_was_written_is_read(world):
    assert (world / "attributes.txt").read_text() == "3\nSmiling Eyeglasses\n2.jpg  1 -1\n0.jpg  -1 -1\n1.jpg  1 1\n"
    images = read(world, attributes=["eyeglasses"], measure_files=[world / "pose.txt"], measures=[YAW])
    assert images.schema.names == ("Eyeglasses", "Yaw")
    assert images.schema["Yaw"] == YAW
    expected = torch.tensor([[0, 1 / 3], [0, -89.5], [1, 0]])
    torch.testing.assert_close(images.labels, expected, rtol=0, atol=0)
    assert [p.name for p in images.paths] == ["2.png", "0.png", "1.png"]
    assert images.splits is None
    assert read(world, partition=world / "splits.txt").splits == ["test", "train", "val"]
    pixels = ImageFiles(images.paths, 4)[2]
    assert (pixels.shape, pixels.dtype) == ((3, 4, 4), torch.float32)
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([100, 1, 0]) / 127.5 - 1)


def test_an_lmdb_stands_for_the_folder(world):
    write_lmdb(world / "faces", faces(3, 4))
    images = CelebAHQ(world / "faces", world / "attributes.txt", partition=world / "splits.txt").read()
    assert images.ids == ["2", "0", "1"]
    assert images.labels.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert images.splits == ["test", "train", "val"]
    assert [ref.key for ref in images.paths] == ["4-00002", "4-00000", "4-00001"]


MAPPING = """idx orig_idx orig_file
0       119613  119614.jpg
1       99094   099095.jpg
2       000001  000002.jpg
"""


def mapped(world, mapping=MAPPING, partition="119614.jpg 2\n099095.jpg 0\n000001.jpg 2\n000002.jpg 1\n"):
    (world / "mapping.txt").write_text(mapping)
    (world / "eval.txt").write_text(partition)
    return read(world, partition=world / "eval.txt", mapping=world / "mapping.txt")


def test_splits_of_celeba_come_through_the_mapping(world):
    images = mapped(world)
    assert dict(zip(images.ids, images.splits, strict=True)) == {"0": "test", "1": "train", "2": "val"}


def test_celeba_names_are_not_taken_for_celebahq_numbers(world):
    (world / "eval.txt").write_text("000000.jpg 0\n000001.jpg 0\n000002.jpg 0\n")
    with pytest.raises(UserError, match=r"3 images have no row in .*eval.txt"):
        read(world, partition=world / "eval.txt")


def test_config_tells_what_it_was_made_with():
    data = CelebAHQ(Path("images"), Path("a.txt"), ["Male"], [Path("pose.txt")], [YAW])
    assert data.config == {
        "images": "images",
        "annotations": "a.txt",
        "attributes": ["Male"],
        "measure_files": ["pose.txt"],
        "measures": [{"name": "Yaw", "kind": "continuous", "classes": [], "low": -90, "high": 90}],
        "partition": None,
        "mapping": None,
    }


def replace(name, old, new):
    def change(world):
        text = (world / name).read_text()
        assert old in text
        (world / name).write_text(text.replace(old, new))

    return change


def measures(world, **options):
    return read(world, measure_files=[world / "pose.txt"], **options)


A, P, S = "attributes.txt", "pose.txt", "splits.txt"


@pytest.mark.parametrize(
    ("change", "action", "message"),
    [
        (
            lambda w: (w / "images/1.png").unlink(),
            read,
            "1 rows of .* have no image in .*drop the row .first: 1",
        ),
        (lambda w: (w / "images/7.png").touch(), read, "1 images of .* have no row in .*first: 7"),
        (lambda w: (w / "images/1.jpg").touch(), read, "1.jpg and 1.png share one name"),
        (lambda w: (w / A).unlink(), read, "attributes.txt cannot be read .No such"),
        (lambda w: (w / A).write_bytes(b"\xff\xd8\xff\xe0"), read, "attributes.txt cannot be read as text"),
        (replace(A, "3\n", "4\n"), read, "line 1 says 4 rows but there are 3"),
        (replace(A, "3\nS", "S"), read, "line 1: expected the number of rows"),
        (replace(A, "0.jpg", "2.png"), read, "2 has more than one row"),
        (
            replace(A, "Smiling Eyeglasses", "Smiling smiling"),
            read,
            "attributes.txt line 2: two columns are named Smiling and smiling",
        ),
        (
            replace(P, "Pitch", "Yaw"),
            lambda w: measures(w, measures=[YAW]),
            "pose.txt line 2: two columns are named Yaw",
        ),
        (
            None,
            lambda w: read(w, measure_files=[w / P, w / P], measures=[YAW]),
            "pose.txt, .*pose.txt: two columns are named Yaw and Yaw",
        ),
        (replace(A, "1 1", "1 0"), read, "line 5: Eyeglasses is 0, not -1 or 1"),
        (replace(A, "1 1", "1 x"), read, "line 5: 'x' is not a number"),
        (replace(A, "1 1", "1"), read, "line 5: expected a file name and 2 values, found 2 words"),
        (
            replace(P, "1.jpg", "7.jpg"),
            lambda w: measures(w, measures=[YAW]),
            "1 images have no row in .*pose.txt",
        ),
        (
            replace(P, "-89.5", "-91"),
            lambda w: measures(w, measures=[YAW]),
            "Yaw of 0 is -91, not a number in",
        ),
        (None, lambda w: read(w, attributes=["Smilng"]), "unknown attribute 'Smilng'; did you mean Smiling"),
        (None, lambda w: measures(w, measures=[Attribute("Roll")]), "pose.txt: unknown attribute 'Roll'"),
        (None, lambda w: measures(w, measures=[Attribute("Yaw")]), "Yaw must be continuous"),
        (None, measures, "give both or neither"),
        (None, lambda w: read(w, mapping=w / "m.txt"), "mapping .*m.txt serves to read a partition"),
        (None, lambda w: mapped(w, MAPPING.replace("idx orig_idx", "0 1")), "mapping.txt line 1: expected idx"),
        (None, lambda w: mapped(w, MAPPING + "3 x 4.jpg"), "mapping.txt line 5: expected two numbers"),
        (None, lambda w: mapped(w, MAPPING + "3 4"), "mapping.txt line 5: expected two numbers"),
        (None, lambda w: mapped(w, MAPPING + "1 3 000004.jpg"), "mapping.txt: 1 has more than one row"),
        (None, lambda w: mapped(w, MAPPING.replace("2   ", "5   ")), "1 images have no row in .*mapping.txt.*first: 2"),
        (None, lambda w: mapped(w, partition="119614.jpg 2"), "2 images have no row in .*eval.txt.*first: 000002"),
        (
            replace(S, "1.jpg 1", "1.jpg 3"),
            lambda w: read_splits(w / S, ["1"]),
            "line 3: expected a file name and 0",
        ),
        (
            replace(S, "1.jpg 1\n", ""),
            lambda w: read_splits(w / S, ["1"]),
            "1 images have no row in .*splits.txt",
        ),
        (None, lambda w: write_attributes(w / A, ["a"], ["0"], torch.tensor([[torch.nan]])), "neither"),
    ],
)
def test_bad_input_is_one_clear_line(world, change, action, message):
    if change:
        change(world)
    with pytest.raises(UserError, match=message) as error:
        action(world)
    assert "\n" not in str(error.value)

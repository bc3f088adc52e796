import multiprocessing
import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import lmdb
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.annotated import AnnotatedImages
from lcg_lightning.data.images import (
    ImageFiles,
    LMDBImage,
    find_images,
    match_rows,
    open_image,
    stamp,
)
from lcg_lightning.errors import UserError


def colour(i: int) -> tuple[int, int, int]:
    return (i, 255 - i, 7)


def png(i: int, size: int = 4) -> bytes:
    Image.new("RGB", (size, size), colour(i)).save(file := BytesIO(), "png")
    return file.getvalue()


def write_lmdb(path: Path, records: dict[str, bytes]) -> Path:
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    return path


def faces(n: int, *sizes: int) -> dict[str, bytes]:
    return {f"{s}-{i:05d}": png(i, s) for i in range(n) for s in sizes} | {"length": str(n).encode()}


def first_pixels(batch):
    return ((batch[:, :, 0, 0] + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_an_lmdb_is_read_in_order_by_this_process_and_by_workers(tmp_path, context):
    images = find_images(write_lmdb(tmp_path / "faces.lmdb", faces(12, 4)))
    assert list(images) == [str(i) for i in range(12)]
    files = ImageFiles(list(images.values()), 4)
    assert first_pixels(files[5][None]) == [list(colour(5))]
    loader = DataLoader(files, batch_size=6, num_workers=2, multiprocessing_context=context)
    assert [first_pixels(batch) for batch in loader] == [
        [list(colour(i)) for i in range(6)],
        [list(colour(i)) for i in range(6, 12)],
    ]
    assert first_pixels(files[11][None]) == [list(colour(11))]  # here still, after the workers


def open_lmdb(folder: Path) -> None:
    lmdb.open(str(folder), readonly=True, lock=False).close()


def test_a_forked_process_inherits_no_open_lmdb(tmp_path):
    open_image(find_images(write_lmdb(tmp_path / "faces", faces(1, 4)))["0"])
    child = multiprocessing.get_context("fork").Process(target=open_lmdb, args=(tmp_path / "faces",))
    child.start()
    child.join()
    assert child.exitcode == 0


def test_an_lmdb_may_be_one_file_and_hold_several_sizes(tmp_path):
    folder = write_lmdb(tmp_path / "faces", faces(2, 4, 8))
    file = (folder / "data.mdb").rename(tmp_path / "faces.mdb")
    assert open_image(find_images(file, 8)["1"]).size == (8, 8)
    for size in (None, 16):
        with pytest.raises(UserError, match="holds images of size 4, 8"):
            find_images(file, size)
    write_lmdb(tmp_path / "bedrooms", {"4-0000000": png(0), "length": b"1"})
    assert find_images(tmp_path / "bedrooms", 16) == {"0": LMDBImage(tmp_path / "bedrooms", "4-0000000")}


def test_stamps_are_sizes_and_times_of_what_is_stored(tmp_path):
    folder = write_lmdb(tmp_path / "faces", faces(3, 4) | {"4-00001": b"x" * 5000})
    os.utime(folder / "data.mdb", ns=(1, 17))
    assert [stamp(ref) for ref in find_images(folder).values()] == [(len(png(0)), 17), (5000, 17), (len(png(2)), 17)]
    (tmp_path / "a.png").write_bytes(b"four")
    os.utime(tmp_path / "a.png", ns=(1, 23))
    assert stamp(tmp_path / "a.png") == (4, 23)


def without(key: str, n: int = 3) -> dict[str, bytes]:
    return {k: v for k, v in faces(n, 4).items() if k != key}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (without("length"), "no record `length`"),
        (without("length") | {"length": b"many"}, "no record `length`"),
        (without("4-00001"), "length 3 but no record 4-00001"),
        (faces(3, 4) | {"length": b"2"}, "length 2 but 3 images"),
        ({"length": b"3", "face": b""}, "holds no images"),
    ],
)
def test_a_damaged_lmdb_is_one_clear_line(tmp_path, records, message):
    with pytest.raises(UserError, match=message) as error:
        find_images(write_lmdb(tmp_path / "faces", records))
    assert "\n" not in str(error.value)


def test_a_damaged_record_or_file_is_one_clear_line(tmp_path):
    folder = write_lmdb(tmp_path / "faces", faces(40, 64) | {"64-00007": png(7, 64)[:-30]})
    with pytest.raises(UserError, match=r"faces record 64-00007 cannot be read as an image .*replace it"):
        ImageFiles([find_images(folder)["7"]], 64)[0]
    for action in (open_image, stamp):
        with pytest.raises(UserError, match="record 64-00099 is not there"):
            action(LMDBImage(folder, "64-00099"))
    whole = (folder / "data.mdb").read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "is cut short"),
        (b"hello" * 2000, "read as an LMDB"),
        (b"", "an LMDB"),
    ):
        (tmp_path / f"{len(content)}.lmdb").write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            find_images(tmp_path / f"{len(content)}.lmdb")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="neither a folder nor an LMDB"):
        find_images(tmp_path / "nowhere.lmdb")


def test_folders_are_searched_through(tmp_path):
    for name in ("00000/00000.png", "00000/00001.jpg", "01000/01000.PNG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(tmp_path)
    assert {i: str(path.relative_to(tmp_path)) for i, path in found.items()} == {
        "00000": "00000/00000.png",
        "00001": "00000/00001.jpg",
        "01000": "01000/01000.PNG",
    }
    (tmp_path / "01000/00001.png").touch()
    with pytest.raises(UserError, match=r"00000/00001.jpg and 01000/00001.png share one name"):
        find_images(tmp_path)
    with pytest.raises(UserError, match="holds no images"):
        find_images((tmp_path / "empty").mkdir() or tmp_path / "empty")


def test_rows_are_matched_without_leading_zeros_and_never_twice():
    assert match_rows(["00000", "00017", "3"], {"17", "0"}, "t.csv") == {"0": 0, "17": 1}
    assert match_rows(["00017", "17"], {"00017", "17"}, "t.csv") == {"00017": 0, "17": 1}
    assert match_rows(["x0017", "²"], {"17", "2"}, "t.csv") == {}
    with pytest.raises(UserError, match=r"t.csv: rows 00017 and 17 both name image 17"):
        match_rows(["00017", "17"], {"17"}, "t.csv")


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def pixel(path: Path):
    return first_pixels(ImageFiles([path], 2)[0][None])[0]


def test_modes_without_loss_are_converted(tmp_path):
    red = Image.new("RGB", (2, 2), (250, 3, 1))
    opaque = red.copy()
    opaque.putalpha(255)
    assert pixel(saved(tmp_path / "rgba.png", opaque)) == [250, 3, 1]
    assert pixel(saved(tmp_path / "p.png", red.quantize(4))) == [250, 3, 1]
    assert pixel(saved(tmp_path / "l.png", Image.new("L", (2, 2), 9))) == [9, 9, 9]
    assert pixel(saved(tmp_path / "la.png", Image.new("LA", (2, 2), (9, 255)))) == [9, 9, 9]


@pytest.mark.parametrize(
    ("suffix", "image", "options", "message"),
    [
        ("png", Image.new("RGBA", (2, 2), (1, 2, 3, 254)), {}, "mode RGBA with transparent pixels; put it on"),
        ("png", Image.new("LA", (2, 2), (1, 0)), {}, "mode LA with transparent pixels"),
        ("png", Image.new("P", (2, 2), 0), {"transparency": 0}, "mode P with transparent pixels"),
        ("jpg", Image.new("CMYK", (2, 2)), {}, "mode CMYK; save it as 8-bit RGB"),
        ("png", Image.new("I;16", (2, 2), 3000), {}, "mode I;16; save it as 8-bit RGB"),
        ("png", Image.new("1", (2, 2)), {}, "mode 1; save it as 8-bit RGB"),
    ],
)
def test_modes_that_would_lose_something_are_refused(tmp_path, suffix, image, options, message):
    path = saved(tmp_path / f"x.{suffix}", image, **options)
    with pytest.raises(UserError, match=message) as error:
        ImageFiles([path], 2)[0]
    assert str(error.value).startswith(str(path))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, target in (("device", "/dev/zero"), ("loop", "loop.png"), ("gone", "nowhere"), ("folder", ".")):
        (tmp_path / f"{name}.png").symlink_to(target)
    assert len(find_images(tmp_path)) == 5
    for path in tmp_path.iterdir():
        for action in (open_image, stamp):
            with pytest.raises(
                UserError,
                match=rf"^{path} (is (not a regular file|a folder)|cannot be read \([^\n]*); give an image file$",
            ):
                action(path)


def test_a_format_that_runs_another_program_is_not_opened(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", "eps")
    with pytest.raises(
        UserError, match=r"x\.png cannot be read as an image .not a JPEG, PNG, WEBP or BMP file.; replace it$"
    ):
        open_image(tmp_path / "x.png")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("side", [10_000, 20_000])  # of which Pillow warns, and which it refuses
def test_a_picture_that_would_fill_the_memory_is_one_line(tmp_path, recwarn, side):
    chunk = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    header = struct.pack(">I", len(chunk)) + b"IHDR" + chunk + struct.pack(">I", zlib.crc32(b"IHDR" + chunk))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"\x00\x00\x00\x64IDAT")
    with pytest.raises(
        UserError, match=rf"bomb\.png cannot be read as an image \([^\n]*{side**2} pixels[^\n]*; replace it$"
    ):
        open_image(tmp_path / "bomb.png")
    assert not recwarn.list


def test_images_are_read_without_the_libraries_of_the_evaluation():
    code = "import sys, lcg_lightning.data.images; print([m for m in ('torchmetrics', 'cleanfid') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (2, 2), (0, 0, 0))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright = ImageFiles([saved(tmp_path / "x.png", image, exif=exif)], 2)[0]
    assert upright[0].tolist() == [[-1, 1], [-1, -1]]


def test_sizes_that_do_not_fit(tmp_path):
    square, wide = (saved(tmp_path / f"{w}.png", Image.new("RGB", (w, 4))) for w in (4, 6))
    assert ImageFiles([square], 2, resize=True)[0].shape == (3, 2, 2)
    with pytest.raises(UserError, match="4x4 pixels, and the generator takes 2x2; resize it"):
        ImageFiles([square], 2)[0]
    with pytest.raises(UserError, match=r"6x4 pixels.*crop it to a square first"):
        ImageFiles([wide], 2, resize=True)[0]


def test_splits_are_checked(tmp_path):
    for splits in (["train"], ["train", "dev"]):
        with pytest.raises(UserError, match="splits must name"):
            AnnotatedImages(
                ["a", "b"], torch.zeros(2, 1), AttributeSchema((Attribute("x"),)), splits, paths=[tmp_path] * 2
            )

"""Uploaded pictures: what is refused, what is done to the others, and that none stays."""

import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from lcg_lightning.errors import UserError
from lcg_lightning.studio import sources, uploads


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    """A PNG file that says how large it is, and holds nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif(path):
    Image.new("P", (4000, 4000)).save(path, "GIF", save_all=True, append_images=[Image.new("P", (4000, 4000), 1)] * 3)


BAD = {
    "text": (lambda path: path.write_text("no picture"), "cannot be read as a picture; upload a JPEG, PNG"),
    "empty": (lambda path: path.touch(), "cannot be read as a picture"),
    "gif": (gif, "cannot be read as a picture"),
    "svg": (lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "cannot be read as a picture"),
    "pixels": (lambda path: path.write_bytes(png_header(10_000, 10_000)), "10000 x 10000 pixels; .* 50 million"),
    "bytes": (lambda path: os.truncate(path.open("w").name, uploads.MOST_BYTES + 1), "20 MB; upload .* at most 20 MB"),
    "broken": (lambda path: path.write_bytes(png_header(64, 64)), "The picture cannot be read"),
    "clear": (lambda path: Image.new("RGBA", (64, 64)).save(path, "PNG"), "transparent"),
    "gone": (lambda path: None, "gone already; upload the picture again"),
    "deep": (lambda path: Image.new("I;16", (64, 64)).save(path, "PNG"), "8-bit RGB"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_refused_file_is_a_sentence_without_its_path_and_is_removed(tmp_path, name):
    make, complaint = BAD[name]
    file = tmp_path / "face.png"
    make(file)
    with pytest.raises(UserError, match=complaint) as refusal:
        uploads.read_upload(file, 64)
    assert str(tmp_path) not in str(refusal.value)
    assert not any(tmp_path.iterdir())


def test_a_picture_is_turned_upright_cropped_and_scaled_and_its_file_is_removed(tmp_path):
    picture = np.zeros((120, 200, 3), np.uint8)  # upright: 200 high, 120 wide, its middle square red over blue
    picture[:, 100:] = 255, 0, 0
    picture[:, :100] = 0, 0, 255
    picture[:, :40] = picture[:, 160:] = 0, 255, 0
    exif = Image.Exif()
    exif[0x0112] = 8  # a quarter turn to the left shows it upright
    file = tmp_path / "face.jpg"
    Image.fromarray(picture).save(file, "JPEG", exif=exif, quality=100, subsampling=0)
    upload = uploads.read_upload(file, 64)
    top, bottom = upload.image[:, 8:24].mean((1, 2)), upload.image[:, 40:56].mean((1, 2))
    assert top.tolist() == pytest.approx([1, -1, -1], abs=0.05)
    assert bottom.tolist() == pytest.approx([-1, -1, 1], abs=0.05)
    assert upload.image[1].max() < 0  # nothing of the green ends
    assert upload.remark == "The picture was cropped to the 120 x 120 pixels in its middle and scaled to 64 x 64."
    assert not file.exists()


def test_a_picture_of_the_generators_size_is_encoded_as_it_is(resources, tmp_path):
    shown = resources.worker.do(sources.row, resources, 2).picture
    file = tmp_path / "face.png"
    Image.fromarray(shown).save(file)
    source = resources.worker.do(sources.uploaded, resources, file)
    assert np.array_equal(source.uploaded, shown)
    assert source.remark == ""
    assert np.abs(source.picture.astype(float) - shown).mean() < 12  # it comes back from the encoder about as it was


def test_files_that_nobody_reads_are_swept_away_when_they_are_old(tmp_path):
    old, new = tmp_path / "a/old.png", tmp_path / "b/new.png"
    for file in (old, new):
        file.parent.mkdir()
        file.touch()
    os.utime(old, (time.time() - uploads.KEPT_SECONDS - 1,) * 2)
    uploads.sweep(tmp_path)
    assert not old.exists()
    assert new.exists()

"""The studio's Edit page as visitors use it."""

import base64
import http.client
import io
import struct
import zlib

import pytest
from PIL import Image

from tests.browser.audit import audit
from tests.browser.studio import edited, edits, notice, opened, pictures, slide


@pytest.fixture
def page(tab, studio):
    yield opened(tab, studio)
    words = tab.one("body").text
    assert "Traceback" not in words
    assert "Something went wrong" not in words


def test_every_visitor_can_see_and_use_all_of_the_page(page):
    age = slide(page, "ARROW_RIGHT")
    edited(page, f"Age={age}")
    page.one("#edit-compare input").click()
    page.until(lambda: len(pictures(page, "#edit-others")) > 3, "every method")
    assert audit(page) == []


def test_a_move_is_an_edit_and_undo_brings_the_old_picture_back(page):
    (source,) = pictures(page, "#edit-result")
    age = slide(page, "ARROW_RIGHT")
    older = edited(page, f"Age={age}")
    assert older != source
    smiles = page.one("#edit-Smiling input").is_selected()
    page.one("#edit-Smiling input").click()
    both = edited(page, f"Age={age}", "~Smiling" if smiles else "Smiling")
    assert both not in (source, older)
    page.one("#edit-undo").click()
    assert edited(page, f"Age={age}") == older
    assert page.one("#edit-Smiling input").is_selected() == smiles
    page.one("#edit-reset").click()
    page.until(lambda: pictures(page, "#edit-result") == [source], "the source alone")


def test_the_last_of_many_quick_moves_counts(page):
    assert slide(page, "HOME", *["ARROW_RIGHT"] * 50) == "68"
    quick = edited(page, "Age=68")
    page.one("#edit-reset").click()
    page.until(lambda: not edits(page), "the source alone")
    assert slide(page, "END") == "80"
    assert edited(page, "Age=80") != quick
    field = page.one("#edit-Age input[type=number]")
    page.run("arguments[0].focus(); arguments[0].select()", field)
    page.press("6", "8", "TAB")
    assert edited(page, "Age=68") == quick


def test_two_tabs_have_edits_of_their_own(page, studio):
    (source,) = pictures(page, "#edit-result")
    other = opened(page.new(), studio)
    mine = slide(page, "ARROW_RIGHT")
    result = edited(page, f"Age={mine}")
    assert pictures(other, "#edit-result") == [source]
    other.one("#edit-next").click()
    other.until(lambda: pictures(other, "#edit-result") not in ([source], []), "the next face")
    theirs = slide(other, "END")
    edited(other, f"Age={theirs}")
    smiles = page.one("#edit-Smiling input").is_selected()
    page.one("#edit-Smiling input").click()
    edited(page, f"Age={mine}", "~Smiling" if smiles else "Smiling")
    page.one("#edit-undo").click()
    assert edited(page, f"Age={mine}") == result
    assert edits(other) == [f"Age={theirs}"]


def test_the_keyboard_alone_edits_and_takes_back(page):
    (source,) = pictures(page, "#edit-result")

    def reach(css):
        there = "return document.activeElement.matches(arguments[0])"
        page.until(lambda: page.press("TAB") or page.run(there, css), f"the focus on {css}")

    reach("#edit-Smiling input")
    page.press("SPACE")
    page.until(lambda: len(edits(page)) == 1, "an edit")
    reach("#edit-Age input[type=range]")
    page.press("ARROW_RIGHT")
    page.until(lambda: len(edits(page)) == 2, "two edits")
    for left in (1, 0):
        reach("#edit-undo")
        page.press("ENTER")
        page.until(lambda left=left: len(edits(page)) == left, f"{left} edits")
    assert pictures(page, "#edit-result") == [source]


def png(width, height):
    """A PNG file that claims a size and holds next to no pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gif():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF")
    return buffer.getvalue()


def test_a_wrong_file_is_answered_by_a_sentence(page, tmp_path):
    source = pictures(page, "#edit-result")
    field = page.one("#edit-controls input[type=file]")
    for name, content, words in [
        ("text.png", b"no picture", "cannot be read as a picture"),
        ("huge.png", png(20_000, 20_000), "too many pixels"),
        ("bomb.gif", gif(), "cannot be read as a picture"),
    ]:
        (tmp_path / name).write_bytes(content)
        field.send_keys(str(tmp_path / name))
        notice(page, "edit", words)
        assert pictures(page, "#edit-result") == source


def test_an_uploaded_picture_is_turned_upright_and_shown_beside_its_reconstruction(page, world, tmp_path):
    row = pictures(page, "#edit-result")
    face = next((world.faces / "images").iterdir())
    upright = Image.open(face).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upright.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png", exif=exif)
    page.one("#edit-controls input[type=file]").send_keys(str(tmp_path / "turned.png"))
    page.until(lambda: len(pictures(page, "#edit-result")) == 2, "the picture and its reconstruction")
    uploaded, reconstruction = pictures(page, "#edit-result")
    assert Image.open(io.BytesIO(base64.b64decode(uploaded.split(",")[1]))).tobytes() == upright.tobytes()
    slide(page, "ARROW_RIGHT")
    page.until(lambda: len(edits(page)) == 1, "an edit of it")
    assert len({uploaded, reconstruction, *pictures(page, "#edit-result")}) == 3
    page.one("#edit-previous").click()
    page.until(lambda: pictures(page, "#edit-result") == row, "the row last seen")


def test_a_request_that_carries_too_much_is_refused(studio):
    """Also where a call, whose body is read whole, is named as the path of uploads."""
    for path in ("upload", "run/upload", "queue/join"):
        line = http.client.HTTPConnection(studio.removeprefix("http://"), timeout=30)
        line.putrequest("POST", f"/gradio_api/{path}")
        line.putheader("Content-Type", "application/json")
        line.putheader("Content-Length", str(22 * 2**20))
        line.endheaders()
        assert line.getresponse().status == 413
        line.close()

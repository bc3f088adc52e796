"""Commands that compute say at once that their folder cannot be made, and refuse numbers that no machine can serve."""

import pytest

from lcg_lightning.commands import edit, encode, leaderboard, render, sample
from lcg_lightning.commands.preflight import check
from lcg_lightning.data.place import PUBLISHED
from lcg_lightning.data.sources.exact import ExactFaces
from lcg_lightning.data.sources.generated import Sampled
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError

COMMANDS = {
    "render": render.render,
    "encode": lambda out: encode.encode(out, None),
    "sample": lambda out: sample.sample("Smiling", out.parent, out),
    "edit": lambda out: edit.edit(["Smiling"], out.parent, out),
}
UNWRITABLE = {
    "file/out": "is a file",
    "link": "is a link to nowhere",
    "x" * 300: "File name too long",
    "/proc/out": "No such file",
}


@pytest.fixture
def nothing_is_computed(monkeypatch):
    def fail(*_, **__):
        pytest.fail("the folder must be checked first")

    for module in (encode, sample, edit):
        monkeypatch.setattr(module, "load_generator", fail)
    monkeypatch.setattr(LatentStore, "open", fail)
    monkeypatch.setattr(render, "sample_z", fail)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("nothing_is_computed")
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_loaded(name, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("mine")
    for place, reason in (UNWRITABLE | {"full": "exists and is not empty"}).items():
        with pytest.raises(UserError, match=rf"{place} [^\n]*{reason}[^\n]*$"):
            COMMANDS[name](tmp_path / place)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "link", "precious"]


@pytest.mark.usefixtures("nothing_is_computed")
def test_the_root_folder_and_a_device_without_memory_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^/ exists and is not empty"):
        check(["Smiling", "store", "/"], 2)
    with pytest.raises(UserError, match="device 'meta' cannot be used"):
        sample.sample("Smiling", tmp_path, tmp_path / "out", device="meta")


def test_records_are_not_read_where_no_leaderboard_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard, "write_leaderboard", lambda *_: pytest.fail("the folder must be checked first"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("gone")
    for place, reason in UNWRITABLE.items():
        with pytest.raises(UserError, match=rf"{place} cannot be written [^\n]*{reason}[^\n]*$"):
            leaderboard.leaderboard(tmp_path / place)


def test_an_encoding_that_was_stopped_after_its_store_was_in_place_may_go_on(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/store.json").touch()
    with pytest.raises(UserError, match="exists and is not empty"):
        check([f"--out={tmp_path}/store"], "out")
    (tmp_path / "store.partial").mkdir()
    (tmp_path / "store.partial" / PUBLISHED).touch()
    check([f"--out={tmp_path}/store"], "out")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda out: render.render(out, train=10**13), "10000000002000 images; ask for at most 10000000$"),
        (lambda out: render.render(out, seed=-1), "seed is -1; give a number from 0 to 4294967295$"),
        (lambda out: render.render(out, seed=2**64), "seed is 18446744073709551616; give a number from 0"),
        (
            lambda out: sample.sample("x", out, out, n=10**13),
            "n is 10000000000000; ask for at least one image and at most",
        ),
        (lambda out: encode.encode(out, None, num_workers=100_000), "num_workers is 100000; it must be from 0 to"),
        (lambda out: encode.encode(out, None, devices=100_000), "devices is 100000; it must be from 1 to"),
        (lambda out: encode.encode(out, None, batch_size=10**12), "batch_size is 1000000000000; it must be from 1 to"),
        (lambda _: Sampled(10**13, "synthfaces"), "n is 10000000000000; draw from 1 to 10000000$"),
        (lambda _: ExactFaces(train=10**13), "10000000003000 rows; ask for at most 10000000$"),
    ],
)
@pytest.mark.usefixtures("nothing_is_computed")
def test_numbers_that_no_machine_can_serve_are_refused(tmp_path, action, message):
    with pytest.raises(UserError, match=message):
        action(tmp_path / "out")
    assert not list(tmp_path.iterdir())

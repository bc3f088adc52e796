"""Writing: whole or not at all, refused early and in one line, and nothing of others removed."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic, atomic_folder, ensure_writable, load_json, read_text, refuse_occupied, sha256


@contextmanager
def full_disk(size=20_000):
    """No file of this process may grow beyond ``size``: the system's way to refuse a write, for root too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def listing(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def nowhere(tmp_path):
    """Places that cannot be written, for root too, and why."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        tmp_path / "file" / "out": "is a file",
        tmp_path / "file" / "a" / "b": "is a file",
        tmp_path / "link": "is a link to nowhere",
        tmp_path / "loop" / "out": "is a link to nowhere",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / "a" / ("x" * 300) / "out": "File name too long",
        type(tmp_path)("/sys/out"): "Operation not permitted|Permission denied|Read-only file system",
    }


def test_a_place_that_cannot_be_written_is_one_line_before_any_work(tmp_path):
    for place, reason in nowhere(tmp_path).items():
        before = listing(tmp_path)
        for action in (ensure_writable, lambda p: atomic_folder(p).__enter__()):
            with pytest.raises(UserError, match=rf"cannot be written \(.*({reason})[^\n]*; [^\n]*name another place$"):
                action(place)
        assert listing(tmp_path) == before


def test_a_writable_place_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, tmp_path / "a/b/c", type(tmp_path)("x"), type(tmp_path)("x/../y")):
        ensure_writable(place)
    assert not list(tmp_path.iterdir())


def test_a_place_that_another_process_is_trying_out_is_not_occupied(tmp_path, monkeypatch):
    """Of processes that start together, each tries the same empty folder."""
    write, seen = type(tmp_path).write_bytes, []

    def meanwhile(path, data):
        refuse_occupied(tmp_path)
        seen.append(path)
        return write(path, data)

    monkeypatch.setattr(type(tmp_path), "write_bytes", meanwhile)
    ensure_writable(tmp_path)
    assert seen


def big_bytes(path):
    path.write_bytes(bytes(100_000))


def big_tensors(path):
    save_file({"x": torch.zeros(100_000)}, path)


def big_checkpoint(path):
    with path.open("wb") as file:
        torch.save({"x": torch.zeros(100_000)}, file)


def write(path, writer):
    with full_disk(), atomic(path) as temporary:
        writer(temporary)


@pytest.mark.parametrize("writer", [big_bytes, big_tensors, big_checkpoint])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, writer):
    path = tmp_path / "result.bin"
    path.write_text("before")
    with pytest.raises(UserError, match=rf"^{path} cannot be written \([^\n]*File too large[^\n]*; make room[^\n]*$"):
        write(path, writer)
    assert listing(tmp_path) == {"result.bin": b"before"}


def interrupt(path):
    with atomic_folder(path) as part:
        (part / "a").write_text("x")
        raise KeyboardInterrupt


def test_a_file_goes_through_a_link_and_never_onto_a_folder_or_a_dangling_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/real").write_text("old")
    (tmp_path / "link").symlink_to("there/real")
    with atomic(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/real").read_text() == "new"
    (tmp_path / "dangling").symlink_to("gone")
    for place in (tmp_path / "dangling", tmp_path / "there"):
        with pytest.raises(UserError, match="cannot be written"), atomic(place):
            pytest.fail("must be refused before anything is computed")
    assert not (tmp_path / "gone").exists()


def test_nothing_of_others_is_removed(tmp_path):
    """Once the user's own ``.out.partial`` was."""
    for name in (".out.partial", "out.partial", ".out.writing-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "out")
    assert listing(tmp_path) == before
    with atomic_folder(tmp_path / "out") as part:
        (part / "a").write_text("x")
    assert listing(tmp_path) == before | {"out": None, "out/a": b"x"}


def overtaken(out):
    with atomic_folder(out) as late:
        (late / "late").write_text("b")
        with atomic_folder(out) as early:
            (early / "early").write_text("a")
        assert (late / "late").read_text() == "b"


def test_of_two_folders_at_once_the_first_wins_and_stays_whole(tmp_path):
    with pytest.raises(UserError, match=r"out exists and is not empty[^\n]*$"):
        overtaken(tmp_path / "out")
    assert listing(tmp_path) == {"out": None, "out/early": b"a"}
    with pytest.raises(UserError, match="exists and is not empty"):
        refuse_occupied(tmp_path / "out")


def test_an_error_inside_names_the_folder_that_was_asked_for(tmp_path):
    with (
        pytest.raises(UserError, match=rf"^{tmp_path}/out/x\.bin cannot be written \(File too large\)"),
        full_disk(),
        atomic_folder(tmp_path / "out") as part,
        atomic(part / "x.bin") as file,
    ):
        file.write_bytes(bytes(100_000))
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with atomic_folder(tmp_path / "link") as part:
        (part / "a").write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/a").read_text() == "x"


def test_a_key_given_twice_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"x": [{"n": 1, "n": 2}]}')
    with pytest.raises(UserError, match=r"a\.json cannot be read as JSON \(the key 'n' is given twice\)"):
        load_json(tmp_path / "a.json")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", type(tmp_path)("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match=r"is (not a regular file|a folder)"):
            read_text(path)


def test_sha256_is_what_sha256sum_prints(tmp_path):
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    printed = subprocess.run(["sha256sum", tmp_path / "a"], check=True, capture_output=True, text=True).stdout
    assert sha256(tmp_path / "a") == printed.split()[0]


def test_the_ground_floor_loads_no_torch():
    code = "import sys, lcg_lightning.files; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

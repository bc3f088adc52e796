import io
import json
import math

import pytest
from rich.console import Console

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.leaderboard import build, print_leaderboard, write_leaderboard
from lcg_lightning.evaluation.metrics import Estimate
from lcg_lightning.evaluation.records import Record


def record(task="edit", method="lcg", joint=0.8, **changes):
    fields = {
        "config": {"scale": 2.0, "sampler": {"steps": 15}},
        "store_fingerprint": "s",
        "generator_fingerprint": "g",
        "features": "synthfaces-id",
        "features_fingerprint": "0123456789",
        "judge": "judge @01234567",
        "identity": None,
        "n": 1000,
        "seed": 0,
        "sampler": "dpmpp_2m",
        "nfe": 15.0,
        "seconds": 2.5,
        "versions": records.collect_versions(),
        "commit": records.git_commit(),
        "metrics": {
            "acc_joint": Estimate(joint, joint - 0.02, joint + 0.01),
            "acc/Smiling": Estimate(0.9, 0.85, 0.95),
            "fid": Estimate(12.345, 11.0, math.nan),
            "id": Estimate(0.7, 0.65, 0.75),
        },
    }
    return Record(task, method, **(fields | changes))


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "new" / "run.json"
    records.write(record(), path)
    again = records.read(path)
    assert math.isnan(again.metrics["fid"].high)
    assert "null" in path.read_text()
    fid = again.metrics["fid"]._replace(high=99.0)
    same = record(metrics=record().metrics | {"fid": fid})
    assert Record(**vars(again) | {"metrics": again.metrics | {"fid": fid}}) == same
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_a_failed_write_leaves_the_old_record(tmp_path):
    path = tmp_path / "run.json"
    records.write(record(), path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="cannot be kept as JSON"):
        records.write(record(config={"scale": object()}), path)

    def broken():
        with records.atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "record version 1, this release reads version 2"),
        ({"format": "other"}, "is not an evaluation record"),
        ({"nfe": None}, "the record's nfe is None"),
        ({"metrics": {"id": {"value": 1}}}, "a metric is not value, low, high"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_malformed_records_are_refused(tmp_path, change, message):
    path = tmp_path / "run.json"
    records.write(record(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        records.read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """Two tasks, features of three fingerprints under two names, and JSON files that are no records."""
    records.write(record(method="lcg", joint=0.7), tmp_path / "a" / "lcg.json")
    records.write(record(method="cfg|x", joint=0.9, features_fingerprint="abcdefghij"), tmp_path / "a" / "cfg.json")
    records.write(record(method="lace", joint=0.8, features="inception-clean"), tmp_path / "b" / "lace.json")
    only = {"id": Estimate(0.5, 0.4, 0.6)}
    records.write(record(method="unguided", features=None, metrics=only, config={}), tmp_path / "u.json")
    records.write(record(task="age", features_fingerprint="abcdefghij"), tmp_path / "age.json")
    (tmp_path / "wandb-summary.json").write_text('{"fid": 3}')
    return tmp_path


def test_rows_are_sorted_and_hold_nulls(folder):
    rows = build(folder)
    expected = [("age", "lcg"), ("edit", "cfg|x"), ("edit", "lace"), ("edit", "lcg"), ("edit", "unguided")]
    assert [(row["task"], row["method"]) for row in rows] == expected
    assert rows[1]["intervals"]["fid"] == [11.0, None]
    assert (rows[1]["scale"], rows[1]["record"]) == (2.0, "a/cfg.json")
    assert [rows[4][key] for key in ("acc_joint", "acc", "fid", "features", "scale")] == [None] * 5
    assert rows[4]["id"] == 0.5


def test_markdown_keeps_features_apart(folder):
    rows = write_leaderboard(folder)
    assert write_leaderboard(folder) == rows == json.loads((folder / "leaderboard.json").read_text())
    text = (folder / "leaderboard.md").read_text()
    age, edit = text.split("## ")[1:]
    assert "FID (synthfaces-id)" in age
    assert "sampler dpmpp_2m, n 1000, seed 0" in edit
    table = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in edit.splitlines() if line[:1] == "|"]
    heading, _, *lines = table
    fid = ["FID (inception-clean)", "FID (synthfaces-id @01234567)", "FID (synthfaces-id @abcdefgh)"]
    assert [h for h in heading if h.startswith("FID")] == fid
    filled = {line[0]: [f for f in fid if line[heading.index(f)] != "—"] for line in lines}
    assert filled == {"cfg&#124;x": fid[2:], "lace": fid[:1], "lcg": fid[1:2], "unguided": []}
    assert lines[0][heading.index("Joint accuracy")] == "0.900 [0.880, 0.910]"
    assert lines[0][heading.index(fid[2])] == "12.35"
    assert "Drift" not in heading
    for task in ("age", "edit"):
        assert (folder / f"accuracy_identity_{task}.png").stat().st_size > 10_000


def test_terminal_tables(folder):
    for width, shown in ((80, False), (160, True)):
        console = Console(width=width, file=io.StringIO())
        print_leaderboard(build(folder), console)
        text = console.file.getvalue()
        assert ("[0.880, 0.910]" in text) == shown
        assert all(word in text for word in ("age", "edit", "unguided", "0.900"))


def test_nothing_to_show_is_said(tmp_path, folder):
    with pytest.raises(UserError, match="is not a folder"):
        build(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no evaluation record"):
        build(empty)
    (folder / "broken.json").write_text('{"format": "lcg-rec')
    with pytest.raises(UserError, match=r"broken.json: cannot be read as JSON"):
        build(folder)

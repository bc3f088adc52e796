import json
import math
import subprocess
import sys

import pytest

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.leaderboard import write_leaderboard
from lcg_lightning.evaluation.records import Record
from tests.evaluation.test_leaderboard import record


def estimate(value=0.5, low=0.4, high=0.6):
    return {"value": value, "low": low, "high": high}


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "new" / "run.json"
    unknown = record().metrics | {"fid": Estimate(12.0, math.nan, math.nan)}
    records.write(record(metrics=unknown), path)
    again = records.read(path)
    assert math.isnan(again.metrics["fid"].high)
    fid = Estimate(12.0, 11.0, 13.0)
    assert Record(**vars(again) | {"metrics": again.metrics | {"fid": fid}}) == record(metrics=unknown | {"fid": fid})
    assert again.columns[2].high == math.inf
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_what_cannot_be_kept_leaves_the_old_record(tmp_path):
    path = tmp_path / "run.json"
    records.write(record(), path)
    before = path.read_bytes()
    for changes, message in (
        ({"config": {"scale": object()}}, "cannot be kept as JSON"),
        ({"metrics": {"sharpness": Estimate(1.0, 1.0, 1.0)}}, "belongs to no column"),
        ({"columns": [Column("id", "A"), Column("id", "B")]}, "two columns have one name"),
    ):
        with pytest.raises(UserError, match=message):
            records.write(record(**changes), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("literal", [True, False], ids=["a NaN", "null"])
def test_a_figure_that_is_not_finite_costs_only_itself(tmp_path, literal):
    path = tmp_path / "run.json"
    figures = record().metrics | {"fid": Estimate(math.nan, math.nan, math.nan)}
    records.write(record(metrics=figures), path)
    if literal:  # as another program may write it
        path.write_text(path.read_text().replace('"value": null', '"value": NaN'))
    assert records.read(path).failure == "not finite: fid"
    records.write(record(method="other"), tmp_path / "other.json")
    rows = {row["method"]: row for row in write_leaderboard(tmp_path)}
    assert [rows["lcg"][name] for name in ("acc_joint", "fid", "id")] == [0.8, None, 0.7]
    assert rows["other"]["fid"] == 12.345
    assert "\nlcg failed: not finite: fid\n" in (tmp_path / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "record version 3, this release reads version 4"),
        ({"format": "other"}, "is not an evaluation record"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"nfe": None}, "the record's nfe is None"),
        ({"nfe": -1}, "the record's nfe is -1"),
        ({"seconds": math.nan}, "the record's seconds is nan"),
        ({"memory": {"resident": -1}}, "the record's memory is"),
        ({"command": "lcg test"}, "the record's command is 'lcg test'"),
        ({"ranked": None}, "the record's ranked is None"),
        ({"failure": False}, "the record's failure is False"),
        ({"seconds": 10**400}, "the record's seconds is 1000"),
        ({"memory": {"resident": 10**400}}, "the record's memory is"),
        ({"config": {"method": {"init_args": {"scale": math.inf}}}}, "cannot be shown .Out of range"),
        ({"method": "\ud800"}, "cannot be shown .*surrogates not allowed"),
        ({"n": -3}, "the record's n is -3"),
        ({"n": True}, "the record's n is True"),
        ({"n": 2.5}, "the record's n is 2.5"),
        ({"fingerprints": {"store": "1"}}, "the record's fingerprints is"),
        ({"config": {"method": {"init_args": []}}}, "the record's config is"),
        ({"config": {"task": [1]}}, "the record's config is"),
        ({"columns": [{"name": "acc"}]}, "a column is"),
        ({"metrics": {"id": {"value": 1}}}, "metric id is not value, low, high"),
        ({"metrics": {"acc_joint": estimate(5)}}, "metric acc_joint is 5 "),
        ({"metrics": {"acc/Hat": estimate(-0.1)}}, "metric acc/Hat is -0.1 "),
        ({"metrics": {"acc": estimate("0.9")}}, "metric acc is '0.9' "),
        ({"metrics": {"acc": estimate(True)}}, "metric acc is True "),
        ({"metrics": {"fid": estimate(math.inf)}}, "metric fid is inf "),
        ({"metrics": {"id": estimate(0.5, 0.9, 0.1)}}, r"metric id is 0.5 \[0.9, 0.1\], which is impossible"),
        ({"metrics": {"id": estimate(0.5, -7.0)}}, r"\[-7.0, 0.6\], which is impossible"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, change, message):
    path = tmp_path / "run.json"
    records.write(record(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        records.read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_reading_records_and_drawing_a_leaderboard_loads_no_training_library(tmp_path):
    records.write(record(), tmp_path / "run.json")
    script = (
        "import sys; from lcg_lightning.commands.leaderboard import leaderboard; from pathlib import Path\n"
        f"leaderboard(Path({str(tmp_path)!r}))\n"
        "assert not {'torch', 'lightning', 'torchmetrics', 'cleanfid', 'wandb'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=120)

import io
import json
import logging
import re

import pytest
from rich.console import Console

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.leaderboard import build, print_leaderboard, write_leaderboard
from lcg_lightning.evaluation.plots import trade_off
from lcg_lightning.evaluation.records import Record

FINGERPRINTS = {"store": "5" * 16, "generator": "6" * 16, "asked": "a" * 16, "prior": "7" * 16}
FEATURES = "synthfaces-id @0123456789"
REFERENCE = "1000 image files of val at 64 pixels"


def columns(judge="judge @01234567ff", features=FEATURES, reference=REFERENCE, identity="who @89abcdef"):
    name = features.split(" @")[0]
    return [
        Column("acc_joint", "Joint accuracy", low=0, high=1, basis={"judge": judge}),
        Column("acc", "Accuracy", low=0, high=1, basis={"judge": judge}),
        Column("fid", f"FID ({name})", 2, False, low=0, basis={"features": features, "reference": reference}),
        Column("id", "Identity", low=-1, high=1, basis={"identity": identity}),
        Column("drift", "Drift", higher_is_better=False, low=0, basis={"judge": judge}),
    ]


def record(task="edit", method="lcg", joint=0.8, scale=2.0, **changes):
    fields = {
        "config": {"task": {"class_path": "Editing"}, "method": {"class_path": "LCG", "init_args": {"scale": scale}}},
        "fingerprints": FINGERPRINTS,
        "reference": REFERENCE,
        "n": 1000,
        "seed": 0,
        "sampler": "dpmpp_2m",
        "nfe": 15.0,
        "seconds": 2.5,
        "memory": {"resident": 2**30},
        "command": None,
        "ranked": True,
        "failure": None,
        "versions": {"torch": "2.6"},
        "commit": None,
        "columns": columns(),
        "metrics": {
            "acc_joint": Estimate(joint, joint - 0.02, joint + 0.01),
            "acc/Smiling": Estimate(0.9, 0.85, 0.95),
            "fid": Estimate(12.345, 11.0, 99.0),
            "id": Estimate(0.7, 0.65, 0.75),
        },
    }
    return Record(task, method, **(fields | changes))


@pytest.fixture
def folder(tmp_path):
    """Two tasks, features of three fingerprints under two names, and JSON files that are no records."""
    unknown = {"acc_joint": Estimate(0.9, 0.88, 0.91), "fid": Estimate(12.345, 11.0, float("nan"))}
    other, inception = columns(features="synthfaces-id @abcdefabcd"), columns(features="inception-clean @77")
    records.write(record(method="lcg", joint=0.7), tmp_path / "a" / "lcg.json")
    records.write(record(method="cfg|x", columns=other, metrics=unknown), tmp_path / "a" / "cfg.json")
    records.write(record(method="lace", joint=0.8, columns=inception), tmp_path / "b" / "lace.json")
    only = {"id": Estimate(0.5, 0.4, 0.6)}
    records.write(record(method="unguided", columns=columns()[3:4], metrics=only, scale=None), tmp_path / "u.json")
    records.write(record(task="age", columns=other), tmp_path / "age.json")
    (tmp_path / "wandb-summary.json").write_text('{"fid": 3}')
    return tmp_path


def table(text, task):
    """Headings, and the lines' cells by method, of a task's Markdown table."""
    section = text.split(f"## {task}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    return rows[0], {line[0]: line for line in rows[2:]}


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
    assert "FID (synthfaces-id)" in table(text, "age")[0]
    assert "sampler dpmpp_2m, n 1000, seed 0" in text
    heading, lines = table(text, "edit")
    fid = [
        "FID (inception-clean)",
        "FID (synthfaces-id) [features synthfaces-id @01234567]",
        "FID (synthfaces-id) [features synthfaces-id @abcdefab]",
    ]
    assert [h for h in heading if h.startswith("FID")] == fid
    filled = {method: [f for f in fid if line[heading.index(f)] != "—"] for method, line in lines.items()}
    assert filled == {"cfg&#124;x": fid[2:], "lace": fid[:1], "lcg": fid[1:2], "unguided": []}
    assert lines["cfg&#124;x"][heading.index("Joint accuracy")] == "0.900 [0.880, 0.910]"
    assert lines["cfg&#124;x"][heading.index(fid[2])] == "12.35"
    assert "Drift" not in heading
    for task in ("age", "edit"):
        assert (folder / f"accuracy_identity_{task}.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("change", "apart"),
    [
        ({"columns": columns(judge="other @99")}, {"Joint accuracy": "judge"}),
        ({"columns": columns(identity="other @99")}, {"Identity": "identity"}),
        ({"columns": columns(reference="10 decoded latents of train")}, {"FID (synthfaces-id)": "reference"}),
        ({"n": 500}, dict.fromkeys(("Joint accuracy", "FID (synthfaces-id)", "Identity"), "n 500")),
    ],
)
def test_figures_of_another_basis_never_share_a_column(tmp_path, change, apart):
    records.write(record(method="a"), tmp_path / "a.json")
    records.write(record(method="b", **change), tmp_path / "b.json")
    write_leaderboard(tmp_path)
    headings, lines = table((tmp_path / "leaderboard.md").read_text(), "edit")
    for name, what in apart.items():
        places = [i for i, heading in enumerate(headings) if heading.startswith(name)]
        assert len(places) == 2
        assert any(what in headings[i] for i in places)
        for i in places:
            assert [lines["a"][i], lines["b"][i]].count("—") == 1


@pytest.mark.parametrize("what", ["generator", "store", "asked"])
def test_another_world_is_another_table(tmp_path, what):
    records.write(record(method="a"), tmp_path / "a.json")
    records.write(record(method="b", fingerprints=FINGERPRINTS | {what: "77"}), tmp_path / "b.json")
    write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    for method, value in (("a", FINGERPRINTS[what][:8]), ("b", "77")):
        assert table(text, f"edit {what} {value}")[1].keys() == {method}


def test_tasks_of_one_name_and_other_arguments_are_tables_of_their_own(tmp_path):
    for name in ("Hat", "Smiling"):
        task = {"class_path": "Editing", "init_args": {"attributes": [name]}}
        records.write(record(config={"task": task, "method": {}}), tmp_path / f"{name}.json")
    write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert '## edit {"attributes": ["Hat"]}\n' in text
    assert '## edit {"attributes": ["Smiling"]}\n' in text


def test_tasks_with_more_samples_come_first_and_titles_name_their_world(tmp_path):
    made = [("any", 500, "synthfaces"), ("zero", 2000, "synthfaces"), ("zero", 2000, "exact"), ("one", 500, "exact")]
    for i, (task, n, world) in enumerate(made):
        changes = {"fingerprints": FINGERPRINTS | {"generator": world}, "n": n}
        config = {"task": {"class_path": "Editing"}, "method": {"class_path": "LCG"}, "generator": world}
        records.write(record(task, config=config, **changes), tmp_path / f"{i}.json")
    write_leaderboard(tmp_path)
    titles = re.findall("^## (.*)$", (tmp_path / "leaderboard.md").read_text(), re.M)
    assert titles == ["zero exact", "zero synthfaces", "any synthfaces", "one exact"]


def test_a_column_that_no_code_of_ours_knows_is_shown_and_sorts_the_rows(tmp_path):
    blur = Column("blur", "Blur", digits=1, higher_is_better=False)
    for method, value in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        found = {"blur": Estimate(value, value, value)}
        records.write(record(method=method, columns=[blur], metrics=found), tmp_path / f"{method}.json")
    assert [row["method"] for row in write_leaderboard(tmp_path)] == ["b", "c", "a"]
    headings, lines = table((tmp_path / "leaderboard.md").read_text(), "edit")
    assert lines["b"][headings.index("Blur")] == "1.0 [1.0, 1.0]"


def test_a_name_of_two_lines_stays_in_its_cell(tmp_path):
    records.write(record(method="two\nlines"), tmp_path / "r.json")
    write_leaderboard(tmp_path)
    assert "two lines" in table((tmp_path / "leaderboard.md").read_text(), "edit")[1]


@pytest.mark.parametrize("name", [r"$\frac{$ a", "<!-- x", "Ümläut\u202e x", "_hidden", "[red]x[/blue]", "a|b"])
def test_any_name_is_shown_and_hides_nothing(name, tmp_path):
    records.write(record(method=name, task=f"{name} 1"), tmp_path / "a.json")
    records.write(record(task="z last"), tmp_path / "z.json")
    rows = write_leaderboard(tmp_path)
    assert {row["method"] for row in rows} == {name, "lcg"}
    console = Console(width=200, file=io.StringIO())
    print_leaderboard(rows, console)
    assert name in console.file.getvalue()
    text = (tmp_path / "leaderboard.md").read_text()
    assert name.replace("|", "&#124;").replace("<", "&lt;") in table(text, f"{name} 1".replace("<", "&lt;"))[1]
    assert "<" not in text
    legend = [each.get_text().strip() for each in trade_off(rows, "id").legends[0].get_texts()]
    assert sorted(legend) == sorted([name, "lcg"])


def test_tables_with_titles_that_begin_alike_have_figures_of_their_own(tmp_path):
    for last in ("a", "b"):
        task = {"init_args": {"conditions": ["Smiling & Hat"] * 9 + [last]}}
        records.write(record(config={"task": task, "method": {}}), tmp_path / f"{last}.json")
    write_leaderboard(tmp_path)
    names = re.findall(r"\]\((accuracy_identity_.*?)\)", (tmp_path / "leaderboard.md").read_text())
    assert len(names) == len(set(names)) == 2
    assert all((tmp_path / name).exists() for name in names)


def test_a_column_may_not_hide_what_a_row_has(tmp_path):
    found = {"seeds": Estimate(1.0, 1.0, 1.0)}
    records.write(record(columns=[Column("seeds", "Seeds")], metrics=found), tmp_path / "r.json")
    with pytest.raises(UserError, match="a metric's column is called 'seeds'"):
        build(tmp_path)


def test_terminal_tables(folder):
    for width, shown in ((80, False), (200, True)):
        console = Console(width=width, file=io.StringIO())
        print_leaderboard(build(folder), console)
        text = console.file.getvalue()
        assert ("[0.880," in text) == shown
        assert all(word in text for word in ("age", "edit", "unguided", "0.900"))
        assert "[features" in text  # what tells two columns of one heading apart


def test_nothing_to_show_is_said(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        build(tmp_path / "absent")
    with pytest.raises(UserError, match="no evaluation record"):
        build(tmp_path)


def test_foreign_and_half_written_json_is_passed_over(folder, caplog):
    before = build(folder)
    (folder / "broken.json").write_text('{"format": "lcg-rec')
    (folder / ".cut-off").mkdir()
    (folder / ".cut-off/record.json").write_text((folder / "u.json").read_text())
    with caplog.at_level(logging.WARNING):
        assert build(folder) == before
    (line,) = caplog.messages
    assert "broken.json" in line
    assert "\n" not in line


@pytest.mark.parametrize(("low", "high", "marked"), [(0.60, 0.70, True), (0.70, 0.79, False), (0.9, 0.95, False)])
def test_an_accuracy_that_falls_under_the_second_judge_is_marked(low, high, marked, tmp_path):
    """The first judge's interval begins at 0.78."""
    second = Column("acc_joint_second", "Joint accuracy, second judge", low=0, high=1, checks="acc_joint")
    found = {"acc_joint": Estimate(0.8, 0.78, 0.81), "acc_joint_second": Estimate((low + high) / 2, low, high)}
    records.write(record(columns=[*columns(), second], metrics=found), tmp_path / "a.json")
    write_leaderboard(tmp_path)
    assert ("| lcg † |" in (tmp_path / "leaderboard.md").read_text()) == marked


def test_rows_of_other_networks_are_told_apart(tmp_path):
    for name, prior in (("long", "7" * 16), ("short", "8" * 16)):
        method = {"class_path": "LCG", "init_args": {"prior": f"runs/{name}/last.ckpt"}}
        changes = {"config": {"task": {}, "method": method}, "fingerprints": FINGERPRINTS | {"prior": prior}}
        records.write(record(**changes), tmp_path / f"{name}.json")
    without = {key: value for key, value in FINGERPRINTS.items() if key != "prior"}
    records.write(record(method="real", config={"task": {}, "method": {}}, fingerprints=without), tmp_path / "c.json")
    write_leaderboard(tmp_path)
    lines = (tmp_path / "leaderboard.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    column = table[0].index("prior")
    assert sorted(row[column] for row in table[2:]) == ["7" * 8, "8" * 8, "—"]

"""The benchmark's plan is checked before anything runs, and its results take the place of nothing else."""

import functools
import json
import operator

import pytest
import yaml

from benchmarks.benchmark import Part, benchmark, publish, unknown
from benchmarks.jobs import Job, mark
from lcg_lightning.evaluation import records
from tests.conftest import ROOT
from tests.evaluation.test_leaderboard import record


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("methods", "world exact: no method magic"),
        ("tasks", "world exact: no task magic"),
        ("networks", "world exact: no network magic"),
    ],
)
def test_what_nobody_has_is_named(place, said):
    plan = yaml.safe_load((ROOT / "benchmarks/plan.yaml").read_text())
    assert list(unknown(plan)) == []
    wrong = json.loads(json.dumps(plan))  # lists that worlds share become their own
    entry = wrong["worlds"]["exact"][place]
    entry.update(magic={"n": 1}) if isinstance(entry, dict) else entry.append("magic")
    (fault,) = unknown(wrong)
    assert fault.startswith(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan.update(world={}), "missing or unknown: world"),
        (lambda plan: plan.pop("steps"), "missing or unknown: steps"),
        (lambda plan: plan["worlds"]["exact"].update(curvatur=0.3), "world exact: missing or unknown: curvatur"),
        (lambda plan: plan["worlds"]["exact"].pop("rows"), "world exact: missing or unknown: rows"),
        (lambda plan: plan["worlds"]["exact"]["tasks"].update(editing={}), "world exact: task editing has no n"),
        (
            lambda plan: plan["worlds"]["exact"]["tasks"]["editing"].update(withot=["lace"]),
            "world exact: task editing: unknown: withot",
        ),
        (
            lambda plan: plan["worlds"]["exact-0"]["tasks"]["editing"].update(without=["lace"]),
            "world exact-0: task editing leaves out lace, which is not among the world's methods",
        ),
        (lambda plan: plan["worlds"]["exact"]["methods"].append("lcg"), "world exact: method lcg is given twice"),
        (lambda plan: plan["search"].pop("generation"), "search: missing or unknown: generation"),
        (lambda plan: plan["search"]["editing"].update(magic=[{}]), "search editing: no method magic"),
        (lambda plan: plan["methods"]["real"].pop("answers"), "method real: answers is None; give some of"),
        (lambda plan: plan["methods"]["real"].update(answers=["edits"]), "method real: answers is ['edits']"),
        (lambda plan: plan["tasks"].update(undo="edits"), "task undo is edits; give one of"),
    ],
)
def test_what_is_missing_or_misspelled_is_named(change, said):
    plan = yaml.safe_load((ROOT / "benchmarks/plan.yaml").read_text())
    change(plan)
    assert any(fault.startswith(said) for fault in unknown(plan))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ([], None, "the plan is None; give keys and values"),
        (["worlds"], [1], "worlds is [1]; give keys and values"),
        (["worlds", "exact", "tasks", "editing"], None, "worlds.exact.tasks.editing is None; give keys and values"),
        (["worlds", "exact", "networks"], {"prior": 1}, "worlds.exact.networks is {'prior': 1}; give a list"),
        (["worlds", "exact", "methods", 0], 5, "worlds.exact.methods[0] is 5; give text"),
        (["worlds", "exact", "curvature"], True, "worlds.exact.curvature is True; give a number"),
        (["steps", "prior"], "many", "steps.prior is 'many'; give a whole number"),
        (["methods", "lcg", "seeds"], 1, "methods.lcg.seeds is 1; give true or false"),
        (["search", "editing", "cfg", 1], 2, "search.editing.cfg[1] is 2; give keys and values"),
        (["methods", 7], {"answers": ["editing"]}, "methods has the key 7; give text"),
    ],
)
def test_a_value_of_another_type_is_one_line_with_its_key(place, value, said, tmp_path):
    plan = {"": json.loads(json.dumps(yaml.safe_load((ROOT / "benchmarks/plan.yaml").read_text())))}
    *path, last = ["", *place]
    functools.reduce(operator.getitem, path, plan)[last] = value
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan[""]))
    with pytest.raises(SystemExit) as stop:
        benchmark(plan=tmp_path / "plan.yaml")
    assert stop.value.code == f"{tmp_path / 'plan.yaml'}: {said}"


def test_a_network_that_a_method_needs_and_no_world_trains_is_named():
    plan = yaml.safe_load((ROOT / "benchmarks/plan.yaml").read_text())
    plan["worlds"]["exact-0"]["networks"].remove("flow")
    assert any("styleflow needs the network flow" in fault for fault in unknown(plan))


def test_a_task_leaves_methods_out_and_a_search_of_no_task_is_not_run(tmp_path):
    plan = yaml.safe_load((ROOT / "benchmarks/plan.yaml").read_text())

    def names():
        part = Part.read("exact-0", plan, tmp_path)
        return [{job.name.rpartition("-")[0] for job in jobs()} for jobs in (part.searches, part.tests)]

    tasks = plan["worlds"]["exact-0"]["tasks"]
    tasks |= {"undo": {"n": 100}, "conditional-3": {"n": 100}}
    before = names()
    tasks["undo"]["without"] = ["oracle", "arithmetic"]
    assert list(unknown(plan)) == []
    searched, tested = names()
    assert (before[0] - searched, before[1] - tested) == (
        set(),
        {f"test/exact-0/undo/{m}" for m in tasks["undo"]["without"]},
    )
    tasks["editing"]["without"] = ["arithmetic"]
    gone = before[0] - names()[0]
    assert gone == {"search/exact-0/editing/arithmetic"}  # generation still asks it


def test_results_take_the_place_of_former_ones_and_of_nothing_else(tmp_path):
    out, results = tmp_path / "out", tmp_path / "results"
    jobs = [Job(name, (name,), out / name) for name in ("test/a", "search/b", "test/cut-off")]
    for job in jobs:
        records.write(record(), job.out / "record.json")
    for job in jobs[:2]:
        mark(job).write_text(job.digest())
    records.write(record(), out / "test/left-by-another-plan/record.json")
    for split in ("test", "search"):
        (results / split).mkdir(parents=True)
        (results / split / "former.png").write_text("")
    (results / "speed.json").write_text("{}")
    publish([], out, results)  # nothing was measured
    assert (results / "test/former.png").exists()
    publish(jobs, out, results)
    assert (results / "speed.json").read_text() == "{}"
    assert sorted(path.name for path in results.iterdir()) == ["search", "speed.json", "test"]
    for split, name in (("test", "a"), ("search", "b")):
        (row,) = json.loads((results / split / "leaderboard.json").read_text())
        assert row["record"] == f"{name}/record.json"
        assert not (results / split / "former.png").exists()

"""What a batch is asked for: figures that depend on neither its company nor its size, and rows that count."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lcg_lightning.cli import main
from lcg_lightning.conditions import parse
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.asking import survey
from lcg_lightning.evaluation.samples import read
from lcg_lightning.evaluation.tasks import Composed, Conditional, Editing, RandomOrder, SingleEdit, Task, Undo, asking
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.methods.real import Real
from lcg_lightning.synthfaces.faces import SCHEMA
from tests.conftest import ROOT
from tests.evaluation import exact, small

TEXTS = ["Smiling | Hat", "~(Beard | Eyeglasses)", "(Hat & Smiling) | (~Hat & ~Smiling)", "Beard & Age=50"]
TASKS = sorted((ROOT / "benchmarks/tasks").glob("*.yaml"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return exact.write(tmp_path_factory.mktemp("exact") / "store", {"train": 60, "val": 22, "test": 30})


def run(store, task, method, out, **options):
    small.run(store, task, method, out, **exact.OPTIONS, **options)
    return figures(out)


def figures(out):
    """The record and its per-sample figures."""
    record = records.read(out / "record.json")
    return record, read(out / "samples.safetensors", record)


def same(a, b, rows=slice(None)):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name][rows], b[name][rows], rtol=1e-4, atol=1e-5, err_msg=name)


def test_trees_in_one_batch_are_answered_as_each_alone_at_any_size(store, tmp_path):
    mixed, found = run(store, Composed("any", TEXTS), exact.Follows(), tmp_path / "all", batch_size=64, n=45)
    _, few = run(store, Composed("any", TEXTS), exact.Follows(), tmp_path / "few", batch_size=7, n=45)
    assert 0 < mixed.metrics["acc_joint"].value < 1
    same(found, few)
    for k, text in enumerate(TEXTS):
        _, alone = run(store, Composed("any", [text]), exact.Follows(), tmp_path / f"{k}", n=45)
        rows = slice(k, None, len(TEXTS))
        np.testing.assert_array_equal(alone["acc_joint"][rows], found["acc_joint"][rows])
    assert np.isfinite(found["acc/Beard"]).tolist() == [i % 2 == 1 for i in range(45)]  # those without a choice


def test_random_orders_and_drawn_sources_are_the_same_on_two_processes_and_in_any_batch(store, tmp_path):
    task = RandomOrder(["Smiling", "Age", "Hat"], sampled=True, name="drawn")
    _, one = run(store, task, exact.Follows(), tmp_path / "one", batch_size=64, n=40)
    _, few = run(store, task, exact.Follows(), tmp_path / "few", batch_size=3, n=40)
    same(one, few)
    arguments = {
        "model": "Evaluation",
        "model.init_args.task": "RandomOrder",
        "model.init_args.task.init_args": '{"attributes": ["Smiling", "Age", "Hat"], "sampled": true, "name": "drawn"}',
        "model.init_args.method": "tests.evaluation.exact.Follows",
        "model.init_args.generator": str(exact.WORLD),
        "model.init_args.features": "none",
        "model.init_args.n": 40,
        "model.init_args.out": tmp_path / "two",
        "data": "LatentDataModule",
        "data.init_args.store": store,
        "data.init_args.batch_size": 5,
        **{"trainer.devices": 2, "trainer.accelerator": "cpu", "trainer.strategy": "ddp", "trainer.logger": False},
    }
    command = [sys.executable, "-m", "lcg_lightning", "test", *(f"--{k}={v}" for k, v in arguments.items())]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    same(one, figures(tmp_path / "two")[1])


def test_drawn_sources_are_the_generators_and_have_their_true_labels(store, tmp_path, monkeypatch):
    """The opposite of the true label is asked of every source, and no source is a row of the store."""
    seen = []

    class Looks(exact.Nudge):
        def edit(self, source, steps):
            seen.append((source, steps))
            return super().edit(source, steps)

    run(store, Editing(["Smiling", "Age"], sampled=True), Looks(), tmp_path / "out", batch_size=64)
    ((source, (first, second)),) = seen
    opened, world = LatentStore.open(store), ExactWorld(0.3)
    labels = world.labels(opened.space(world).unstandardize(source))
    smiling, age = SCHEMA.index("Smiling"), SCHEMA.index("Age")
    assert torch.equal(first.asked.terms[0].value, 1 - labels[:, smiling])
    torch.testing.assert_close(second.asked.terms[0].value, 98 - labels[:, age], rtol=0, atol=1e-3)
    rows = opened.space(world).standardize(opened.split("test").latents)
    assert torch.cdist(source, rows).min() > 1
    assert 0.2 < labels[:, smiling].mean() < 0.9


def test_edits_that_ask_for_nothing_new_do_not_count(store, tmp_path):
    """Age is mirrored about 49: within a tenth of the range of itself for who is 46 to 52."""
    record, found = run(store, SingleEdit(["Age", "Hat"]), Real(), tmp_path / "out")
    ages = LatentStore.open(store).split("test").labels[:, SCHEMA.index("Age")].double()
    mirrored = [i % 2 == 0 and abs(2 * (age - 49)) <= 6.2 for i, age in enumerate(ages.tolist())]
    assert 0 < sum(mirrored) < 8
    assert found["acc_joint/met_before"].tolist() == mirrored
    assert record.metrics["acc_joint/met_before"].value == pytest.approx(sum(mirrored) / 30)
    assert record.metrics["acc_joint"].value == 0.0  # who does nothing gets nothing right
    for name in ("acc_joint", "id_distance", "drift"):
        assert np.isnan(found[name]).tolist() == mirrored


def test_undo_is_the_distance_to_the_source(store, tmp_path):
    stays, _ = run(store, Undo(["Smiling", "Age"]), Real(), tmp_path / "stays")
    assert stays.metrics["undo"].value == stays.metrics["id_distance"].value == 0.0
    method = exact.Nudge(0.1)
    moves, found = run(store, Undo(["Smiling", "Age"]), method, tmp_path / "moves")
    both = found["acc_joint/step1"] * found["acc_joint/step2"]
    np.testing.assert_array_equal(found["acc_joint"], both)  # of a sample that does not count, NaN
    assert (stays.metrics["acc_joint/step2"].value, stays.metrics["acc_joint"].value) == (1.0, 0.0)
    assert moves.metrics["undo"].value == pytest.approx((2 * method.way).square().mean().sqrt().item(), rel=1e-5)
    assert "undo" not in run(store, SingleEdit(["Smiling"]), Real(), tmp_path / "single")[0].metrics


def test_a_search_uses_the_rows_of_val(store, tmp_path):
    seen = {}

    class Looks(Real):
        def edit(self, source, steps):
            seen.setdefault(self.split, []).append(source)
            return super().edit(source, steps)

    asked = {}
    for split in ("test", "val"):
        record, _ = run(store, Editing(["Smiling"]), Looks(), tmp_path / split, split=split)
        asked[split] = record.fingerprints["asked"]
        assert record.config["split"] == split
    opened = LatentStore.open(store)
    for split, n in (("test", 30), ("val", 22)):
        rows = opened.space(ExactWorld(0.3)).standardize(opened.split(split).latents)
        torch.testing.assert_close(torch.cat(seen[split]), rows)
        assert len(rows) == n
    assert asked["test"] != asked["val"]
    generated, _ = run(store, Conditional(2), Real(), tmp_path / "real", split="val", reference="train")
    assert generated.metrics["acc_joint"].value == 1.0  # the rows of val have the labels of val
    synthfaces = small.write(tmp_path / "store")
    with pytest.raises(UserError, match="reference is val, but its rows are what is asked; give another"):
        small.run(synthfaces, Conditional(), Real(), tmp_path / "out", split="val")
    small.run(synthfaces, Conditional(), Real(), tmp_path / "out", split="val", reference="train")
    assert "of train" in records.read(tmp_path / "out/record.json").reference


class Uneven(Task):
    name = "uneven"

    def kinds(self, index):
        return index % 2

    def steps(self, labels, index, schema):
        return [parse("Hat", schema)] * (1 + int(index[0]) % 2)


def test_what_cannot_be_asked_is_one_line(store, tmp_path):
    labels = torch.zeros(4, len(SCHEMA))
    with pytest.raises(UserError, match=r"task uneven: it asks for \[1, 2\] steps; give every sample as many"):
        survey(Uneven(), "test", labels, SCHEMA)
    with pytest.raises(UserError, match="did you mean Beard"):
        survey(Composed("any", ["Hat", "Beart | Hat"]), "test", labels, SCHEMA)
    marks = {survey(Composed("any", texts), "test", labels, SCHEMA)[1] for texts in (TEXTS, TEXTS[::-1], TEXTS[:2])}
    assert len(marks) == 3
    with pytest.raises(UserError, match="task editing: sampled sources have the labels that a judge reads"):
        small.run(
            small.write(tmp_path / "store"),
            Editing(["Hat"], sampled=True),
            Real(),
            tmp_path / "out",
            generator=str(ROOT / "lcg_lightning/zoo/weights/synthfaces-generator.safetensors"),
            identity="synthfaces",
        )
    assert asking(torch.full((2, len(SCHEMA)), torch.nan), SCHEMA).terms == ()


@pytest.mark.parametrize("task", TASKS, ids=lambda path: path.stem)
def test_every_task_of_the_benchmark_is_met_by_the_oracle(task, store, tmp_path):
    """Through the command line, so that its file is read, and its conditions exist and can be met."""
    out = tmp_path / "out"
    files = [ROOT / "configs/evaluation/exact.yaml", ROOT / "configs/evaluation/oracle.yaml", task]
    options = {"data.init_args.store": store, "model.init_args.out": out, "model.init_args.n": 12}
    unset = ["--model.init_args.method.init_args.faces=null", "--trainer.accelerator=cpu"]
    assert main(["test", *(f"--config={f}" for f in files), *(f"--{k}={v}" for k, v in options.items()), *unset]) == 0
    record, found = figures(out)
    assert record.task == task.stem
    assert record.config["method"]["init_args"] == {"faces": None}
    assert record.metrics["acc_joint"].value == 1.0
    assert np.isfinite(found["acc_joint"]).sum() >= 6

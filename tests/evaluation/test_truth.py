"""In the exact world figures are those of the latents' true faces, and next to nothing is decoded."""

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.metrics.second import SecondAccuracy, SecondIdentity
from lcg_lightning.evaluation.tasks import Conditional, Editing
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.methods.oracle import Oracle
from lcg_lightning.synthfaces.faces import SCHEMA, faces_from_z
from tests.evaluation import exact, small

N = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return exact.write(tmp_path_factory.mktemp("exact") / "store", {"train": 300, "val": 30, "test": N})


@pytest.fixture
def decoded(monkeypatch):
    """Counts the rows that are decoded."""
    counts, decode = [], ExactWorld.decode
    monkeypatch.setattr(ExactWorld, "decode", lambda self, w, noise=None: counts.append(len(w)) or decode(self, w))
    return counts


def faces(store, z):
    """The faces behind standardized latents, through the map's inverse alone."""
    opened, world = LatentStore.open(store), ExactWorld(0.3)
    return faces_from_z(world.to_z(z * opened.std + opened.mean).double()[:, :32])


def test_edits_are_judged_by_the_faces_behind_them(store, tmp_path, decoded):
    names = ["Smiling", "Yaw"]
    seconds = [SecondAccuracy("synthfaces-2"), SecondIdentity("synthfaces-2")]
    small.run(store, Editing(names), exact.Nudge(), tmp_path / "out", metrics=seconds, **exact.OPTIONS)
    record = records.read(tmp_path / "out/record.json")
    opened = LatentStore.open(store)
    rows = ((opened.split("test").latents - opened.mean) / opened.std).float()
    nudge = exact.Nudge()
    nudge.prepare(None, opened.space(ExactWorld(0.3)))
    before, first, last = (faces(store, z) for z in (rows, *nudge.edit(rows, [0, 1])))
    smiling, yaw = (SCHEMA.index(name) for name in names)
    met = (last.labels[:, smiling] != before.labels[:, smiling]) & (
        (last.labels[:, yaw] + before.labels[:, yaw]).abs() <= 6  # a tenth of the range from its mirror image
    )
    found = {name: estimate.value for name, estimate in record.metrics.items()}
    assert found["acc_joint"] == met.double().mean() > 0
    assert found["id_distance"] == pytest.approx((last.identity - before.identity).abs().mean().item(), rel=1e-4)
    assert found["id_distance/step1"] == pytest.approx((first.identity - before.identity).abs().mean().item(), rel=1e-4)
    assert found["scene_distance"] == pytest.approx((last.scene - before.scene).abs().mean().item(), rel=1e-4)
    free = [i for i in range(len(SCHEMA)) if i not in (smiling, yaw)]
    moved = (SCHEMA.unit(last.labels) - SCHEMA.unit(before.labels)).abs()[:, free]
    assert found["drift"] == pytest.approx(moved.mean().item(), rel=1e-4)
    assert not {"acc_joint_second", "id_second", "id"} & found.keys()
    assert record.fingerprints["judge"] == opened.fingerprint
    assert {c.name: c.basis for c in record.columns}["acc_joint"] == {"judge": f"truth @{opened.fingerprint}"}
    assert sum(decoded) == 16 * 3  # the samples of the picture: source and two steps


def test_the_oracle_is_perfect(store, tmp_path, decoded):
    small.run(store, Editing(["Smiling", "Hat"]), Oracle(), tmp_path / "edit", **exact.OPTIONS)
    small.run(store, Conditional(2), Oracle(), tmp_path / "make", **exact.OPTIONS)
    edited, made = (records.read(tmp_path / name / "record.json").metrics for name in ("edit", "make"))
    assert edited["acc_joint"].value == made["acc_joint"].value == 1.0
    assert all(
        made[name].low < at < made[name].high for name, at in {"energy": 0, "energy/pooled": 0, "c2st": 0.5}.items()
    )
    assert max(edited[name].high for name in ("id_distance", "scene_distance", "drift")) < 1e-4
    assert sum(decoded) == 16 * (3 + 1)


def test_samples_off_the_true_conditional_are_far_from_it(store, tmp_path):
    small.run(store, Conditional(1), exact.Nudge(), tmp_path / "out", n=150, **exact.OPTIONS)
    metrics = records.read(tmp_path / "out/record.json").metrics
    assert metrics["energy"].low > 0
    assert metrics["energy/pooled"].low > 0
    assert metrics["c2st"].low > 0.5


def test_truth_of_other_attributes_is_refused(tmp_path):
    world = ExactWorld(0.3)
    rows = Split(torch.randn(4, 64), torch.tensor([[0.0], [1.0]] * 2), list("abcd"))
    splits = {"train": rows, "test": rows._replace(ids=list("efgh"))}
    path = write_store(tmp_path / "store", splits, AttributeSchema((Attribute("Tall"),)), world.fingerprint, {})
    with pytest.raises(UserError, match="has the attributes Tall, but the generator knows the truth of Eyeglasses"):
        small.run(path, Editing(["Tall"]), exact.Nudge(), tmp_path / "out", **exact.OPTIONS)

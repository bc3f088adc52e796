"""What a run leaves behind, on a small store and with methods that need no network."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from lcg_lightning.cli import main
from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.grids import logsnr_grid
from lcg_lightning.diffusion.ode import dopri5
from lcg_lightning.diffusion.samplers import ddim, run
from lcg_lightning.diffusion.schedule import make_schedule
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import gallery, module, records, samples
from lcg_lightning.evaluation.judged import Judges
from lcg_lightning.evaluation.leaderboard import build
from lcg_lightning.evaluation.metrics.second import SecondAccuracy, SecondIdentity
from lcg_lightning.evaluation.output import Claim
from lcg_lightning.evaluation.reference import Reference
from lcg_lightning.evaluation.tasks import Conditional, Editing
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.load import load_identity_network
from lcg_lightning.kept import loaded_once
from lcg_lightning.methods.real import Real
from tests.evaluation import small

METRIC = """
from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.metrics.base import PerSampleMetric


class Brightness(PerSampleMetric):
    columns = (Column("brightness", "Brightness", digits=1),)

    def __init__(self, unit: float = 1.0):
        super().__init__(unit=unit)
        self.unit = unit

    def measure(self, samples):
        return samples.result.images.mean((1, 2, 3))[:, None] / self.unit
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("small") / "store")


def decoded(store, split):
    return load_generator("synthfaces").decode(LatentStore.open(store).split(split).latents)


def test_a_metric_of_a_users_own_file_is_measured_recorded_and_shown(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "brightness_of_mine.py").write_text(METRIC)
    model = {
        "class_path": "Evaluation",
        "init_args": {
            "task": {"class_path": "Conditional"},
            "method": {"class_path": "Real"},
            "out": "runs/1",
            "metrics": [{"class_path": "brightness_of_mine.Brightness", "init_args": {"unit": 0.5}}],
        },
    }
    data = {"class_path": "LatentDataModule", "init_args": {"store": str(store)}}
    trainer = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    (tmp_path / "run.yaml").write_text(json.dumps({"model": model, "data": data, "trainer": trainer}))
    assert main(["test", "--config=run.yaml"]) == 0
    record = records.read(tmp_path / "runs/1/record.json")
    brightness = decoded(store, "test").mean((1, 2, 3)) / 0.5
    assert record.metrics["brightness"].value == pytest.approx(brightness.mean().item(), rel=1e-5)
    assert record.config["metrics"] == model["init_args"]["metrics"]
    assert record.command == ["lcg", "test", "--config=run.yaml"]
    assert 2**27 < record.memory["resident"] < 2**36
    assert record.ranked is False
    per_sample = samples.read(tmp_path / "runs/1" / samples.FILE, record)
    np.testing.assert_allclose(per_sample["brightness"], brightness, rtol=1e-4)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    value, low, high = record.metrics["brightness"]
    assert last.startswith("real on conditional-1: Joint accuracy ")
    assert last.endswith(f", Brightness {value:.1f} [{low:.1f}, {high:.1f}]; record: runs/1/record.json")
    assert main(["leaderboard", "runs"]) == 0
    assert "| Brightness |" in (tmp_path / "runs/leaderboard.md").read_text()


def test_second_networks_judge_the_same_pictures(store, tmp_path):
    """With the zoo's own networks as second ones, second figures equal the first."""
    metrics = [SecondAccuracy("synthfaces"), SecondIdentity("synthfaces")]
    out = tmp_path / "out"
    run = module.Evaluation(Editing(["Smiling"]), Real(), out, metrics=metrics)
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(run, LatentDataModule(store))
    record = records.read(out / "record.json")
    assert record.metrics["acc_joint_second"] == record.metrics["acc_joint"]
    assert record.metrics["id_second"].value == pytest.approx(1.0)
    first, second = ({c.name: c for c in record.columns}[name] for name in ("acc_joint", "acc_joint_second"))
    assert second.basis["second judge"] == first.basis["judge"]


def test_fid_of_the_rows_themselves_compares_with_other_rows(store, tmp_path):
    """Against the closed form on features of decoded test and val rows; zero if test were compared with test."""
    small.run(store, Conditional(), Real(), tmp_path / "out")
    record = records.read(tmp_path / "out/record.json")
    network = load_identity_network("synthfaces")
    a, b = (network(decoded(store, split)).detach().double().numpy() for split in ("test", "val"))
    cross = np.trace(scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * cross
    assert expected > 100
    assert record.metrics["fid"].value == pytest.approx(expected, rel=1e-3)
    assert record.reference == "12 decoded latents of val at 64 pixels"


@pytest.mark.parametrize("kind", ["files", "latents"])
def test_every_reference_row_is_seen_once_however_many_processes(store, tmp_path, kind):
    opened, generator = LatentStore.open(store), load_generator("synthfaces")
    for i, image in enumerate(decoded(store, "val")):
        pixels = ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"val{i}.png")
    images = tmp_path if kind == "files" else None

    def make():
        return Reference(opened, opened.space(generator), "val", images, resize=False, seed=0)

    reference, judges = make(), Judges(None, None, None, opened, opened.space(generator))
    for world in (1, 2, 5):
        batches = [b for rank in range(world) for b in reference.batches(judges, 4, world, rank, torch.device("cpu"))]
        order = torch.cat([rows for _, rows in batches])
        assert sorted(order.tolist()) == list(range(12))
        expected = decoded(store, "val").clamp(-1, 1)[order]
        torch.testing.assert_close(torch.cat([x.images for x, _ in batches]).clamp(-1, 1), expected, atol=0.005, rtol=0)
    before = str(reference)
    Image.new("RGB", (64, 64)).save(tmp_path / "val3.png")
    assert (str(make()) == before) == (kind == "latents")  # other files are another reference


class NoiseAsImage(Generator):
    image_size, noise_shape = 16, (3, 16, 16)

    def decode(self, latents, noise=None):
        return noise


def test_reference_and_samples_share_no_noise(store):
    """With one noise for row i and sample i the two sets would be alike by more than their distributions."""
    opened, generator = LatentStore.open(store), NoiseAsImage()
    space = LatentSpace(generator, opened.mean, opened.std)
    reference = Reference(opened, space, "val", None, resize=False, seed=0)
    judges = Judges(None, None, None, opened, space)
    ((pictures, rows),) = reference.batches(judges, 12, 1, 0, torch.device("cpu"))
    of_samples = generator.noise_of(0, rows, pictures.images)
    assert abs(torch.corrcoef(torch.stack([pictures.images.flatten(), of_samples.flatten()]))[0, 1]) < 0.05


def test_without_val_the_reference_is_named_or_left_out(tmp_path, capsys):
    store = small.write(tmp_path / "store", {"train": 9, "test": 4})
    with pytest.raises(UserError, match=r"no val split for FID.*give another as reference, or set features: none"):
        small.run(store, Conditional(), Real(), tmp_path / "val")
    small.run(store, Conditional(), Real(), tmp_path / "train", reference="train")
    assert records.read(tmp_path / "train/record.json").reference == "9 decoded latents of train at 64 pixels"
    small.run(store, Conditional(), Real(), tmp_path / "none", features="none")
    record = records.read(tmp_path / "none/record.json")
    assert "fid" not in record.metrics
    assert record.reference is None
    assert capsys.readouterr().out.count("note: features: none, so no FID is measured") == 1


def test_a_record_identifies_store_networks_and_arguments(store, tmp_path):
    found = {}
    for name, value in {"a": 0.0, "again": 0.0, "b": 0.5}.items():
        small.run(store, Conditional(), small.Constant(value), tmp_path / name, features="none", seed=3, n=12)
        found[name] = records.read(tmp_path / name / "record.json")
    a, again, b = (found[name] for name in ("a", "again", "b"))
    assert a.fingerprints == again.fingerprints
    assert {key for key in a.fingerprints if a.fingerprints[key] != b.fingerprints[key]} == {"network"}
    opened = LatentStore.open(store)
    assert (a.fingerprints["store"], a.fingerprints["generator"]) == (opened.content_hash, opened.fingerprint)
    assert {"judge", "identity", "asked"} <= a.fingerprints.keys()
    assert b.config["method"] == {"class_path": "tests.evaluation.small.Constant", "init_args": {"value": 0.5}}
    assert b.config["task"]["init_args"] == {"ask": 1, "attributes": None, "name": None}
    assert (b.config["features"], b.config["reference"], b.n, b.seed) == ("none", "val", 12, 3)
    other = small.run(store, Conditional(ask=2), small.Constant(), tmp_path / "two", features="none")
    assert other.record.fingerprints["asked"] != a.fingerprints["asked"]


class Diverging(small.Constant):
    """Its latents are not finite, its sampler overflows, or its flow is too stiff to be solved."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def generate(self, condition, noise):
        if self.way == "latents":
            return super().generate(condition, noise) / 0
        if self.way == "sampler":
            grid = logsnr_grid(make_schedule("linear"), 4)
            return run(lambda eps: ddim(eps, noise, grid), lambda z, i: 1e38 * z)[0]
        return dopri5(lambda t, y: -1e9 * y, noise(0), 0.0, 1.0, 1e-3)[0]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("latents", "method constant: the latent of sample 0 is not finite after step 1"),
        ("sampler", "sampling: . of 4 samples are not finite"),
        ("flow", "dopri5: 4 of 4 samples need more than 2000 steps"),
    ],
)
def test_a_method_that_diverges_ends_the_run_in_one_line_and_in_a_record(way, message, store, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        small.run(store, Conditional(), Diverging(way), tmp_path / "out")
    assert "\n" not in str(error.value)
    record = records.read(tmp_path / "out/record.json")
    assert (record.failure, record.metrics) == (str(error.value), {})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["record.json"]


@pytest.mark.parametrize("limit", [{"limit_test_batches": 1}, {"limit_test_batches": 0.5}, {"fast_dev_run": True}])
def test_a_record_is_of_all_samples_that_it_counts(limit, store, tmp_path):
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, **limit)
    with pytest.raises(UserError, match="leaves samples out; set n instead"):
        small.run(store, Conditional(), Real(), tmp_path / "out", trainer=trainer)
    assert not (tmp_path / "out").exists()


def test_a_precision_that_would_convert_the_shared_networks_is_refused_before(store, tmp_path):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, precision="64-true")
    with loaded_once():
        with pytest.raises(UserError, match=r"trainer\.precision is 64-true; use one of 32-true"):
            small.run(store, Conditional(), Real(), tmp_path / "out", trainer=trainer, n=4)
        small.run(store, Conditional(), Real(), tmp_path / "out", n=4)


def test_a_place_that_cannot_be_written_is_refused_before_the_method_is_prepared(store, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Real, "prepare", lambda *_: pytest.fail("work began"))
    with pytest.raises(UserError, match="cannot be written"):
        small.run(store, Editing(["Hat"]), Real(), tmp_path / "file/out")


def test_a_run_that_dies_between_record_and_picture_can_be_run_again(store, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(gallery, "draw", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            small.run(store, Editing(["Hat"]), Real(), out)
    small.run(store, Editing(["Hat"]), Real(), out)
    assert {path.name for path in out.iterdir()} == {
        "record.json",
        "samples.png",
        "samples.safetensors",
        "edits.png",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    before = (out / "record.json").read_bytes()
    with pytest.raises(UserError, match="not empty"):
        small.run(store, Editing(["Hat"]), Real(), out)
    assert (out / "record.json").read_bytes() == before
    assert build(tmp_path)[0]["id"] == pytest.approx(1.0)


def test_two_runs_do_not_share_a_folder(store, tmp_path):
    first = Claim(tmp_path / "out")
    first.take()
    with pytest.raises(UserError, match="another run is writing to"):
        small.run(store, Editing(["Hat"]), Real(), tmp_path / "out")
    with first.fill() as folder:
        (folder / "record.json").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        Claim(tmp_path / "out").take()
    assert (tmp_path / "out/record.json").read_text() == "mine"
    cut_off = Claim(tmp_path / "cut-off")
    cut_off.take()
    del cut_off  # as the end of its process does
    Claim(tmp_path / "cut-off").take()


def wandb_messages(content):
    """The messages of a W&B run file: 7 bytes, then LevelDB's log format, blocks of 32 KiB."""
    at, message = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole message, or the last part of one
            yield message
            message = b""


def test_wandb_knows_what_a_run_was(store, tmp_path, monkeypatch):
    """Read back from the file that ``wandb sync`` sends."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    import wandb
    from wandb.proto import wandb_internal_pb2

    logger = WandbLogger(project="lcg", save_dir=tmp_path, offline=True)
    trainer = Trainer(accelerator="cpu", logger=logger, enable_progress_bar=False, enable_checkpointing=False)
    done = small.run(store, Conditional(), small.Constant(0.5), tmp_path / "out", trainer, n=12, seed=3)
    wandb.teardown()  # and with it the service, which writes the file
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    config, summary, names = {}, {}, []
    for data in wandb_messages(file.read_bytes()):
        item = wandb_internal_pb2.Record()
        item.ParseFromString(data)
        for update in (*item.config.update, *item.run.config.update):
            config[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
        for row in (*item.history.item, *item.summary.update):
            summary[row.key or "/".join(row.nested_key)] = json.loads(row.value_json)
        names += [item.run.display_name] * item.HasField("run")
    assert names[-1] == "constant on conditional-1, n 12, seed 3"
    assert (config["task"], config["method"], config["n"], config["seed"]) == ("conditional-1", "constant", 12, 3)
    assert config["config"]["method"]["init_args"] == {"value": 0.5}
    assert config["fingerprints"] == done.record.fingerprints
    for name, (value, low, high) in done.record.metrics.items():
        assert summary[name] == pytest.approx(value, rel=1e-6)
        assert (summary[f"{name}/low"], summary[f"{name}/high"]) == pytest.approx((low, high))
    (media,) = tmp_path.glob("wandb/offline-run-*/files/media")
    assert list(media.glob("images/samples*.png"))
    (table,) = media.glob("table/record*.json")
    assert "acc_joint" in table.read_text()

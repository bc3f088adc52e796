"""The command line as a user meets it: every configuration parses, every mistake is one line."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.cli import COMMANDS, main, run
from lcg_lightning.conditions import met, parse
from lcg_lightning.data.store import LatentStore, write_store
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network
from lcg_lightning.synthfaces.faces import SCHEMA
from tests.conftest import ROOT
from tests.evaluation import small

ELSEWHERE = {"judges", "recipes", "sweeps"}  # test_judges.py, test_recipes.py and test_sweep.py run them
CONFIGS = [p for p in sorted(ROOT.glob("configs/**/*.yaml")) if not ELSEWHERE & set(p.parts)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_configuration_parses(path, capsys, world):
    kind = path.parent.name
    if kind == "evaluation":
        files = [ROOT / "configs/evaluation/base.yaml", path, ROOT / "benchmarks/tasks/conditional-1.yaml"]
        arguments = ["test", *(f"--config={file}" for file in files)]
    elif kind == "logger":
        arguments = ["fit", f"--config={ROOT / 'configs/debug/prior.yaml'}", f"--config={path}"]
    else:
        arguments = ["fit", f"--config={path}"]
    if kind == "encode":
        with pytest.raises(SystemExit) as stop:
            main(["encode", f"--config={path}", "--print_config"])
        assert stop.value.code == 0
        return
    if kind != "zoo":
        arguments.append(f"--data.init_args.store={world.store}")
    with pytest.raises(SystemExit) as stop:
        run([*arguments, "--print_config"])
    assert stop.value.code == 0
    assert "class_path" in capsys.readouterr().out


def test_rendering_and_encoding(tmp_path, world):
    faces, store = tmp_path / "faces", tmp_path / "store"
    assert main(["render", str(faces), "--train=12", "--val=2", "--test=3"]) == 0
    config = ROOT / "configs/encode/synthfaces.yaml"
    files = {"images": "images", "annotations": "attributes.txt", "partition": "splits.txt"}
    paths = [f"--data.init_args.{key}={faces / name}" for key, name in files.items()]
    paths.append(f"--data.init_args.measure_files=[{faces / 'pose.txt'}, {faces / 'age.txt'}]")
    assert main(["encode", f"--config={config}", f"--out={store}", *paths]) == 0
    assert LatentStore.open(store).schema == LatentStore.open(world.store).schema
    assert LatentStore.open(store).sizes == {"train": 12, "val": 2, "test": 3}


@pytest.mark.parametrize("name", ["prior", "classifier"])
def test_debug_configurations_run(name, world, tmp_path):
    data = [f"--data.init_args.store={world.store}", f"--trainer.default_root_dir={tmp_path}"]
    assert (
        main(
            [
                "fit",
                f"--config={ROOT}/configs/debug/{name}.yaml",
                *data,
                f"--trainer.logger.init_args.save_dir={tmp_path}",
            ]
        )
        == 0
    )
    assert (tmp_path / "last.ckpt").exists()
    (log,) = tmp_path.glob("**/metrics.csv")
    assert "val/loss" in log.read_text()
    assert (log.parent / "config.yaml").exists()


def fails(capsys, *arguments):
    """The one line that a failing command prints, before any progress bar."""
    assert main([str(a) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert not {"Editing", "Sampling"} & set(printed.out.split())
    error = printed.err.strip().splitlines()
    assert len([line for line in error if line.startswith("lcg: error: ")]) == 1
    assert not any("Traceback" in line for line in error)
    return error[-1]


@pytest.fixture
def sampling(world, tmp_path):
    return [world.store, tmp_path / "out", *networks(world)]


def networks(world):
    return [f"--method.prior={world.prior}", f"--method.classifier={world.classifier}"]


def test_sampling_writes_images_latents_and_a_grid(world, tmp_path):
    out = tmp_path / "out"
    condition = "Smiling & ~(Hat | Bald) & age=60"
    options = [*networks(world), "--method.steps=4"]
    assert main(["sample", condition, str(world.store), str(out), *options, "--n=5"]) == 0
    assert len(list((out / "images").iterdir())) == 5
    assert Image.open(out / "grid.png").size[0] > 100
    with safe_open(out / "latents.safetensors", "pt") as file:
        latents = file.get_tensor("latents")
        assert file.metadata()["condition"] == "Smiling & ~(Hat | Bald) & Age=60"
    report = json.loads((out / "report.json").read_text())
    told = {"method": "lcg", "scale": 2.0, "seed": 0, "n": 5, "read_by": "synthfaces-attributes"}
    assert told.items() <= report.items()
    assert report["init_args"]["classifier"] == str(world.classifier)
    (step,) = report["steps"]
    assert step["condition"] == "Smiling & ~(Hat | Bald) & Age=60"
    seen = pixels(sorted((out / "images").iterdir()))
    labels = SCHEMA.predict(load_attribute_judge().select(SCHEMA)(seen))
    hits = met(parse(condition, SCHEMA), labels, SCHEMA)
    assert step["met"] == hits.tolist()
    assert step["mean_met"] == hits.double().mean()
    assert len(step["probability"]) == 5
    again = tmp_path / "again"
    assert main(["sample", condition, str(world.store), str(again), *options, "--n=3", "--batch_size=2"]) == 0
    with safe_open(again / "latents.safetensors", "pt") as file:
        torch.testing.assert_close(file.get_tensor("latents"), latents[:3], rtol=1e-4, atol=1e-4)


def pixels(files):
    """Images (N, 3, 64, 64) in [-1, 1]."""
    read = torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files])
    return read.permute(0, 3, 1, 2).float() / 127.5 - 1


def test_editing_starts_from_images_or_rows(world, tmp_path):
    options = [*networks(world), "--method.steps=4"]
    edits = '["Smiling", "~Eyeglasses"]'
    rows, files = tmp_path / "rows", tmp_path / "files"
    assert main(["edit", edits, str(world.store), str(rows), *options, "--n=3"]) == 0
    with safe_open(rows / "latents.safetensors", "pt") as file:
        latents = file.get_tensor("latents")
    assert latents.shape == (3, 3, 128)
    assert torch.equal(latents[:, 0], LatentStore.open(world.store).split("test").latents[:3])
    images = ["--images", str(world.faces / "images"), "--n=2"]
    assert main(["edit", edits, str(world.store), str(files), *options, *images]) == 0
    assert (files / "strips.png").exists()
    report = json.loads((rows / "report.json").read_text())
    assert (report["scale"], report["sources"]) == (8.0, "test rows 0 to 2")
    assert [step["condition"] for step in report["steps"]] == ["Smiling", "Smiling & ~Eyeglasses"]
    source, *states = (pixels(sorted((rows / "images").glob(f"*-{k}.png"))) for k in range(3))
    network = load_identity_network()
    for step, seen in zip(report["steps"], states, strict=True):
        cosine = torch.cosine_similarity(network.embed(seen), network.embed(source))
        torch.testing.assert_close(torch.tensor(step["identity"]), cosine, atol=0.01, rtol=0)
    assert len(list((files / "images").iterdir())) == 6


def edited(world, out, *options):
    """Edits without networks; images by name, and the latents."""
    assert main(["edit", "Smiling", str(world.store), str(out), "--method=LatentArithmetic", *map(str, options)]) == 0
    pictures = {path.name: path.read_bytes() for path in (out / "images").iterdir()}
    return pictures, safetensors.torch.load_file(out / "latents.safetensors")["latents"]


def renamed(pictures, places):
    return {f"{new:05d}-{k}.png": pictures[f"{old:05d}-{k}.png"] for new, old in enumerate(places) for k in (0, 1)}


def test_chosen_sources_give_the_pictures_of_the_whole_run(world, tmp_path):
    """One at a time, so that the same sums are computed."""
    alone = "--batch_size=1"
    whole, latents = edited(world, tmp_path / "whole", "--n=9", alone)
    rows, chosen = edited(world, tmp_path / "rows", "--rows=[7, 2]", alone)
    assert rows == renamed(whole, [7, 2])
    assert torch.equal(chosen, latents[[7, 2]])
    train = edited(world, tmp_path / "train", "--rows=[299]", "--split=train", alone)[1]
    assert torch.equal(train[0, 0], LatentStore.open(world.store).split("train").latents[299])
    files = sorted((world.faces / "images").iterdir())
    folder, _ = edited(world, tmp_path / "folder", "--images", world.faces / "images", "--n=3", alone)
    file, _ = edited(world, tmp_path / "file", "--images", files[2])
    assert file == renamed(folder, [2])


def test_sampled_faces_are_those_of_an_evaluation(world, tmp_path):
    faces, latents = edited(world, tmp_path / "faces", "--sample_seed=3", "--n=4", "--batch_size=3")
    _, again = edited(world, tmp_path / "again", "--sample_seed=3", "--n=2")
    assert torch.equal(again[:, 0], latents[:2, 0])
    generator = load_generator("synthfaces")
    assert torch.equal(latents[:, 0], generator.latents_of(3, torch.arange(4)))
    assert latents[:, 0].unique(dim=0).shape == latents[:, 0].shape
    assert not torch.equal(latents[0, 0], generator.latents_of(4, torch.arange(1))[0])
    assert len(set(faces.values())) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows=[31]"], "no row 31 in the test split; its 31 rows count from 0"),
        (["--rows=[-1]"], "no row -1 in the test split"),
        (["--rows=[]"], "no rows; give at least one"),
        (["--rows=[x]"], "rows"),
        (["--rows=[3]", "--images=faces"], "rows and images are both given"),
        (["--rows=[3]", "--n=2"], "rows and n are both given"),
        (["--images=faces", "--sample_seed=1"], "images and sample_seed are both given"),
        (["--sample_seed=-1"], "seed -1 must be 0 or more"),
        (["--images=nowhere.png"], "nowhere.png cannot be read"),
        (["--images=words.txt"], "not a JPEG, PNG, WEBP or BMP file"),
    ],
)
def test_wrong_sources(options, message, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("no image")
    assert message in fails(capsys, "edit", "Smiling", world.store, "out", "--method=LatentArithmetic", *options)
    assert not (tmp_path / "out").exists()


def test_latents_that_are_not_finite_leave_nothing(tmp_path, capsys):
    store, out = small.write(tmp_path / "store"), tmp_path / "out"
    constant = ["--method=tests.evaluation.small.Constant", "--method.value=.nan"]
    assert main(["sample", "Smiling", str(store), str(out), *constant]) == 2
    assert "the latent of sample 0 is not finite" in capsys.readouterr().err
    shift = ["--method=LatentArithmetic", "--method.scale=1e39"]  # beyond float32
    assert main(["edit", '["Smiling"]', str(store), str(out), *shift]) == 2
    assert "the latent of sample 0 is not finite after step 1" in capsys.readouterr().err
    assert main(["edit", '["Smiling"]', str(store), str(out), "--method=LatentArithmetic", "--method.scale=.inf"]) == 2
    assert "scale is inf" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("Smilling", "did you mean Smiling"),
        ("Smiling & (Hat", "column 15: expected ')'"),
        ("Age", "Age needs a value"),
    ],
)
def test_wrong_conditions(condition, message, sampling, capsys):
    assert message in fails(capsys, "sample", condition, *sampling)


def test_no_samples_no_seed_and_occupied_folders(sampling, world, tmp_path, capsys):
    assert "at least one" in fails(capsys, "sample", "Hat", *sampling, "--n=0")
    assert "seed -1 must be 0 or more" in fails(capsys, "sample", "Hat", *sampling, "--seed=-1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("keep")
    assert "not empty" in fails(capsys, "sample", "Hat", *sampling)
    assert (tmp_path / "out/mine").read_text() == "keep"
    assert "no command 'fitt'" in fails(capsys, "fitt")


def test_store_of_another_generator(world, sampling, tmp_path, capsys):
    store = LatentStore.open(world.store)
    parts = {name: store.split(name) for name in store.sizes}
    write_store(tmp_path / "other", parts, store.schema, "0123456789abcdef", {})
    assert "another generator" in fails(capsys, "sample", "Hat", tmp_path / "other", *sampling[1:])


def test_networks_trained_on_other_statistics(world, sampling, tmp_path, capsys):
    store = LatentStore.open(world.store)
    parts = {name: store.split(name) for name in store.sizes}
    for name, std in {"same": store.std, "other": 1.01 * store.std}.items():
        write_store(tmp_path / name, parts, store.schema, store.fingerprint, {}, (store.mean, std))
    assert main(["sample", "Hat", str(tmp_path / "same"), *map(str, sampling[1:]), "--n=1", "--method.steps=2"]) == 0
    capsys.readouterr()
    message = fails(capsys, "sample", "Hat", tmp_path / "other", tmp_path / "again", *sampling[2:])
    assert "standardized by other statistics" in message


def test_networks_of_another_schema_or_kind(world, sampling, tmp_path, capsys):
    store = LatentStore.open(world.store)
    renamed = [{**a, "name": a["name"].replace("Eyeglasses", "Sunglasses")} for a in store.schema.to_json()]
    parts, other = {name: store.split(name) for name in store.sizes}, tmp_path / "renamed"
    write_store(other, parts, AttributeSchema.from_json(renamed), store.fingerprint, {}, (store.mean, store.std))
    message = fails(capsys, "sample", "Hat", other, *sampling[1:])
    assert "trained on attributes Eyeglasses" in message
    swapped = sampling[3].replace("classifier", "prior", 1)
    message = fails(capsys, "sample", "Hat", *sampling[:2], swapped, sampling[3])
    assert "holds no LatentPrior" in message
    assert "give a checkpoint file" in fails(
        capsys, "sample", "Hat", *sampling[:2], "--method.prior=nowhere.ckpt", sampling[3]
    )


def test_parsers_mistakes_are_one_line(capsys, tmp_path):
    for arguments, message in {
        ("encode", "--data=Foo", "--out=x"): "Foo",
        ("encode", "--data=DataSource", f"--out={tmp_path / 'x'}"): "DataSource is not a data set",
        (
            "encode",
            "--data=Sampled",
            "--data.n=3",
            "--data.attributes=synthfaces",
            f"--out={tmp_path / 'x'}",
            "--devices=0",
        ): "devices is 0",
        ("sample", "Hat"): "arguments are required: prior, classifier",
        ("test", "--config=nowhere.yaml"): "nowhere.yaml",
        ("test", "--model=Foo"): "Foo",
    }.items():
        assert message in fails(capsys, *arguments)


def test_a_checkpoint_that_would_run_code_is_refused(world, sampling, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"state_dict": {}, "hyper_parameters": Evil()}, tmp_path / "evil.ckpt")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(world.prior.read_bytes()[:-5000])
    flipped = bytearray(world.prior.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(flipped)
    for name, message in {"evil": "refused to load eval", "cut": "damaged", "flipped": "damaged"}.items():
        path = tmp_path / f"{name}.ckpt"
        assert message in fails(capsys, "sample", "Hat", *sampling[:2], f"--method.prior={path}", sampling[3])
        assert message in fails(capsys, "sample", "Hat", *sampling[:3], f"--method.classifier={path}")
    assert not (tmp_path / "ran").exists()


def test_every_command_has_help(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([*name.split(), "--help"])
        assert stop.value.code == 0
        assert "required" in capsys.readouterr().out or name in ("export-zoo", "studio")  # which need nothing

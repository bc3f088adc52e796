"""Both recipes as docs/recipes.md gives them, at miniature size, on files of the true structure."""

import json
import pickle

import lmdb
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from lcg_lightning.cli import main
from lcg_lightning.data.images import ImageFiles, find_images
from lcg_lightning.data.store import LatentStore
from lcg_lightning.generators.diffae import DiffAEGenerator
from lcg_lightning.generators.load import load_generator
from lcg_lightning.methods.directions import CELEBA
from tests.conftest import ROOT
from tests.docs.pages import follow, section
from tests.formats.test_programs import Tiny, onnx
from tests.generators.published import SIZE, diffae_checkpoint, stylegan2_pickle

N = 80
SMALL = {
    "fit": [
        *("--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--trainer.accelerator=cpu"),
        "--model.init_args.hidden=32",
    ],
    "test": ["--trainer.accelerator=cpu", "--model.init_args.n=6", "--model.init_args.features=identity"],
    "encode": ["--accelerator=cpu", "--num_workers=0"],
}
"""What the miniature changes: sizes, and Inception for the identity network, whose weights are not here."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current directory with the repository's configurations and an empty data folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    torch.manual_seed(0)
    judges = tmp_path / "data/judges"
    judges.mkdir(parents=True)
    for name, (columns, size) in {"lace-ffhq": (20, 224), "celeba40": (40, 224), "arcface": (8, 112)}.items():
        onnx(Tiny(columns).eval(), judges / f"{name}.onnx", torch.zeros(2, 3, size, size))
    return tmp_path


def recipe(title):
    """Runs the commands of a section of the page, one after another, in this process."""
    follow(section((ROOT / "docs/recipes.md").read_text(), title), SMALL)


def rows_of(folder):
    rows = json.loads((folder / "records/leaderboard.json").read_text())
    assert {(r["method"], r["task"]) for r in rows} == {
        (m, t) for m in ("lcg", "arithmetic", "real") for t in ("conditional-3", "editing")
    }
    for row in rows:
        assert 0 <= row["acc"] <= 1
        assert (row["id"] is not None) == (row["task"] == "editing")
        assert (row["fid"] is not None) == (row["task"] == "conditional-3")
        assert row["judge"]
        if row["method"] == "real" and row["id"]:
            assert row["id"] == pytest.approx(1.0)
    return rows


def test_ffhq_stylegan2(place, capsys):
    data = place / "data/ffhq-stylegan2"
    data.mkdir()
    network = stylegan2_pickle(data / "ffhq.pkl", size=SIZE)
    w = network.mapping(torch.randn(N, 8)).detach()
    layers = w[:, None, None].expand(-1, 1, network.num_ws, -1).numpy().copy()
    (data / "all_latents.pickle").write_bytes(pickle.dumps({"Latent": layers}))
    labels = np.random.default_rng(0).random((N, 21)).astype(object)
    for column in (2, 6, 8, 9):  # smile, gender, beard, glasses
        labels[:, column] = labels[:, column] > 0.5
    labels[::7, 7] = None
    (data / "att_light.pickle").write_bytes(pickle.dumps({"att_light": [labels]}))
    recipe("FFHQ, StyleGAN2 (W)")
    rows = rows_of(place / "runs/ffhq-stylegan2")
    store = LatentStore.open(
        "runs/ffhq-stylegan2/store", load_generator("configs/recipes/ffhq-stylegan2/generator.yaml")
    )
    torch.testing.assert_close(store.split("train").latents, w[: store.sizes["train"]])
    assert store.split("train").labels[0, 0] == 1 - float(labels[0, 6])
    assert {r["generator"] for r in rows} == {store.fingerprint[:8]}
    layers += np.random.default_rng(1).normal(size=layers.shape).astype(np.float32)
    (data / "all_latents.pickle").write_bytes(pickle.dumps({"Latent": layers}))
    encode = ["encode", "--config=configs/recipes/ffhq-stylegan2/encode.yaml", "--out=runs/plus"]
    assert main(encode) == 2
    assert "load the generator with space: w+" in capsys.readouterr().err
    plus = '--generator={"path": "data/ffhq-stylegan2/ffhq.pkl", "space": "w+"}'
    assert main([*encode, plus]) == 0
    for name in ("prior", "classifier"):
        to = [f"--trainer.default_root_dir=runs/plus-{name}", "--data.init_args.store=runs/plus"]
        assert main(["fit", f"--config=configs/recipes/ffhq-stylegan2/{name}.yaml", *to, *SMALL["fit"]]) == 0
    networks = ["--method.prior=runs/plus-prior/last.ckpt", "--method.classifier=runs/plus-classifier/last.ckpt"]
    assert (
        main(["sample", "Smiling & Age=0.2", "runs/plus", "runs/samples", *networks, "--n=2", "--method.steps=4", plus])
        == 0
    )
    with safe_open("runs/samples/latents.safetensors", "pt") as file:
        assert file.get_tensor("latents").shape == (2, network.num_ws, 16)
    again = ["--out=runs/sampled", "--data.init_args.n=40", *SMALL["encode"]]
    assert main(["encode", "--config=configs/recipes/ffhq-stylegan2/encode-sampled.yaml", *again]) == 0
    assert LatentStore.open("runs/sampled").schema == store.schema


def test_celebahq_diffae(place, monkeypatch):
    data = place / "data/celebahq-diffae"
    for kind in ("latent", "cls"):
        (data / f"ffhq256_autoenc_{kind}").mkdir(parents=True)
        diffae_checkpoint(data / f"ffhq256_autoenc_{kind}/last.ckpt", kind)
    generator = np.random.default_rng(0)
    with lmdb.open(str(data / "celebahq256.lmdb"), map_size=2**24) as env, env.begin(write=True) as transaction:
        for i in range(N):
            image = Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
            image.save(file := place / "image.jpg", quality=100)
            transaction.put(f"{SIZE}-{i:05d}".encode(), file.read_bytes())
        transaction.put(b"length", str(N).encode())
    signs = generator.choice([-1, 1], (N, 40))
    rows = [f"{i}.jpg  {' '.join(map(str, row))}" for i, row in enumerate(signs)]
    (data / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join([str(N), " ".join(CELEBA), *rows, ""]))
    origin = generator.permutation(1000)[:N]
    lines = [f"{i} {o} {o + 1:06d}.jpg" for i, o in enumerate(origin)]
    (data / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(["idx orig_idx orig_file", *lines, ""]))
    parts = [f"{i + 1:06d}.jpg {0 if i % 3 else 2 - i % 2}" for i in range(1000)]
    (data / "list_eval_partition.txt").write_text("\n".join([*parts, ""]))
    inverted, invert = [], DiffAEGenerator.invert
    monkeypatch.setattr(DiffAEGenerator, "invert", lambda self, x, z: inverted.append(x) or invert(self, x, z))
    recipe("CelebA-HQ, Diffusion Autoencoder (z_sem)")
    rows_of(place / "runs/celebahq-diffae")
    maker = load_generator("configs/recipes/celebahq-diffae/generator.yaml", invert_steps=50)
    store = LatentStore.open("runs/celebahq-diffae/store", maker)
    torch.testing.assert_close(store.mean, maker.statistics[0])
    found = find_images("data/celebahq-diffae/celebahq256.lmdb")
    sources = ImageFiles([found[i] for i in store.split("test").ids[:6]], SIZE)
    torch.testing.assert_close(torch.cat(inverted), torch.stack([sources[i] for i in range(6)]).repeat(3, 1, 1, 1))
    train = store.split("train")
    assert {int(i) for i in train.ids} == {i for i, o in enumerate(origin) if o % 3}
    smiling = CELEBA.index("Smiling")
    assert [int(x) for x in train.labels[:, 0]] == [int(signs[int(i), smiling] > 0) for i in train.ids]
    store = "runs/celebahq-diffae/store"
    options = ["--generator=configs/recipes/celebahq-diffae/generator.yaml", "--n=2", "--method.steps=4"]
    options += ["--method.prior=data/celebahq-diffae/ffhq256_autoenc_latent/last.ckpt"]
    options += ["--method.classifier=runs/celebahq-diffae/classifier/last.ckpt"]
    images = ["--images=data/celebahq-diffae/celebahq256.lmdb"]
    assert main(["edit", '["Smiling", "~Young"]', store, "runs/edits", *options, *images]) == 0
    assert main(["sample", "Smiling | ~Male", store, "runs/samples", *options]) == 0
    with safe_open("runs/edits/latents.safetensors", "pt") as file:
        assert file.get_tensor("latents").shape == (2, 3, 8)
    record = json.loads((place / "runs/celebahq-diffae/records/lcg-editing/record.json").read_text())
    assert record["config"]["method"]["init_args"]["prior"].endswith("ffhq256_autoenc_latent/last.ckpt")


def test_every_recipe_file_is_used_by_the_page():
    page = (ROOT / "docs/recipes.md").read_text()
    for folder in (ROOT / "configs/recipes").iterdir():
        for file in folder.glob("*.yaml"):
            assert file.stem in page, file
            assert yaml.safe_load(file.read_text()), file

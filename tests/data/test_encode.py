import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.annotated import AnnotatedLatents
from lcg_lightning.data.encode import encode, sample_and_label
from lcg_lightning.data.encode import store as store_rows
from lcg_lightning.data.rows import SPLITS
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.load import load_attribute_judge
from tests.data.encode_run import SIZE, FakeGenerator, annotated
from tests.generators.published import stylegan2_pickle
from tests.test_files import full_disk

N = 23
SCHEMA = AttributeSchema((Attribute("Odd"),))
SCRIPT = Path(__file__).with_name("encode_run.py")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = torch.randint(0, 256, (N, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(1)).byte()
    pixels[:, 0, 0, 0] = torch.arange(N)
    for i, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(folder / f"{i:02d}.png")
    return folder


def encode_here(images, out, generator=None, **options):
    options = {"batch_size": 4, "accelerator": "cpu", "num_workers": 0} | options
    return encode(annotated(images), generator or FakeGenerator(), out, **options)


def assert_same_store(a, b):
    files = sorted(f.name for f in a.iterdir())
    assert files == sorted(f.name for f in b.iterdir())
    assert all((a / f).read_bytes() == (b / f).read_bytes() for f in files)


def logged(log):
    return sorted(int(line.split()[0]) for line in log.read_text().splitlines())


def test_latents_stand_by_the_labels_and_ids_of_their_images(images, tmp_path):
    generator = FakeGenerator()
    store = LatentStore.open(encode_here(images, tmp_path / "store"), generator)
    assert store.latent_shape == (2, 3)
    assert sum(store.sizes.values()) == N
    for name in store.sizes:
        latents, labels, ids = store.split(name)
        for latent, label, image in zip(latents, labels, ids, strict=True):
            pixels = torch.tensor(list(Image.open(images / f"{image}.png").tobytes())).view(SIZE, SIZE, 3)
            expected = generator.matrix.double()((pixels.permute(2, 0, 1).double() / 127.5 - 1).flatten())
            torch.testing.assert_close(latent.flatten().double(), expected, rtol=1e-5, atol=1e-5)
            assert label.item() == int(image) % 2
            generator.matrix.float()


def test_interrupted_run_goes_on_on_two_processes_and_encodes_each_image_once(images, tmp_path):
    whole = encode_here(images, tmp_path / "whole", num_workers=2)
    log, out = tmp_path / "log", tmp_path / "store"
    with pytest.raises(RuntimeError, match="the encoder broke"):
        encode_here(images, out, FakeGenerator(log, fail_at=3), shard_batches=2)
    assert not out.exists()
    assert logged(log) == list(range(12))  # three batches of four
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, SCRIPT, images, out, log]
    resumed = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert resumed.returncode == 0, resumed.stderr
    assert logged(log) == list(range(N))
    assert len({line.split()[1] for line in log.read_text().splitlines()[12:]}) == 2
    assert_same_store(whole, out)
    assert not list(tmp_path.glob("*.partial"))


def test_a_run_killed_at_any_moment_can_be_started_again(images, tmp_path):
    for i in range(6, N):
        (images / f"{i:02d}.png").unlink()
    whole, runs = encode_here(images, tmp_path / "whole", batch_size=8), tmp_path / "runs"
    script = [sys.executable, "-m", "tests.data.kill_run", images, runs]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    told = subprocess.run(script, env=env, capture_output=True, text=True, timeout=500)
    assert told.returncode == 0, told.stderr
    lines = [line for line in told.stdout.splitlines() if " again " in line]
    assert len(lines) > 20
    assert sum("store True partial True" in line for line in lines) > 2
    assert all(line.endswith(("again 0", "again done")) for line in lines), told.stderr
    for run in runs.iterdir():
        assert_same_store(whole, run / "store")
        assert not (run / "store.partial").exists()


class Large(FakeGenerator):
    """Latents of 24 kB each."""

    latent_shape = (1000, 6)

    def encode(self, images):
        return super().encode(images).view(-1, 1, 6).repeat(1, 1000, 1)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(images, tmp_path):
    log, out = tmp_path / "log", tmp_path / "store"
    message = rf"^{out}\.partial/\S+ cannot be written \([^\n]*File too large[^\n]*; make room[^\n]*$"
    for size in (110_000, 300_000):  # room for a shard of four rows, but not of eight; for shards, but not for a split
        with pytest.raises(UserError, match=message), full_disk(size):
            encode_here(images, out, Large(log), shard_batches=1 if size > 110_000 else 2)
        assert not out.exists()
    assert logged(log) == sorted([*range(8), *range(N)])  # the first eight could not be kept
    encode_here(images, out, Large(log))
    assert_same_store(out, encode_here(images, tmp_path / "whole", Large()))


class Twice(FakeGenerator):
    """Starts a second run for the same place while it encodes."""

    def encode(self, images):
        with pytest.raises(UserError, match=r"^another run is writing to \S*store\.partial; wait[^\n]*$"):
            encode_here(*self.second)
        return super().encode(images)


def test_a_second_run_at_once_is_refused_and_the_first_goes_on(images, tmp_path):
    generator = Twice()
    generator.second = (images, tmp_path / "store")
    assert_same_store(encode_here(images, tmp_path / "store", generator), encode_here(images, tmp_path / "whole"))


def test_a_finished_store_is_not_taken_for_one_of_other_labels(images, tmp_path):
    out, partial = tmp_path / "store", tmp_path / "store.partial"
    encode_here(images, out)
    with pytest.raises(UserError, match="exists and is not empty"):
        encode_here(images, out)
    partial.mkdir()
    (partial / "precious").write_text("mine")
    for mark in (None, {}, {"run": "", "content": LatentStore.open(out).content_hash}):
        if mark is not None:
            (partial / "published.json").write_text(json.dumps(mark))
        with pytest.raises(UserError, match="exists and is not empty"):
            encode_here(images, out)
    shutil.rmtree(out)
    (partial / "published.json").unlink()
    with pytest.raises(UserError, match=r"store\.partial exists and is not empty"):
        encode_here(images, out)
    assert (partial / "precious").read_text() == "mine"


def test_damaged_shard_and_replaced_image_are_encoded_again(images, tmp_path):
    out, log = tmp_path / "store", tmp_path / "log"
    with pytest.raises(RuntimeError, match="broke"):
        encode_here(images, out, FakeGenerator(fail_at=3), shard_batches=1)
    shards = {}
    for shard in (tmp_path / "store.partial").glob("*.safetensors"):
        shards[load_file(shard)["rows"][0].item()] = shard
    assert sorted(shards) == [0, 4, 8]
    shards[4].write_bytes(shards[4].read_bytes()[:-8])
    Image.open(images / "09.png").rotate(180).save(images / "09.png")
    replaced = Image.open(images / "09.png")
    replaced.putpixel((0, 0), (9, 0, 0))
    replaced.save(images / "09.png")
    encode_here(images, out, FakeGenerator(log), batch_size=3)
    assert logged(log) == [4, 5, 6, 7, 9, *range(12, N)]
    fresh, resumed = LatentStore.open(encode_here(images, tmp_path / "fresh")), LatentStore.open(out)
    for name in SPLITS:
        torch.testing.assert_close(resumed.split(name).latents, fresh.split(name).latents)


def test_partial_folder_of_others_is_refused(images, tmp_path):
    out = tmp_path / "store"
    with pytest.raises(RuntimeError, match="broke"):
        encode_here(images, out, FakeGenerator(fail_at=1))
    with pytest.raises(UserError, match="other generator weights") as other_generator:
        encode_here(images, out, FakeGenerator(seed=5))
    (images / "00.png").unlink()
    with pytest.raises(UserError, match="other image names") as other_images:
        encode_here(images, out)
    assert all("\n" not in str(error.value) for error in (other_generator, other_images))


class NotANumber(FakeGenerator):
    def encode(self, images):
        latents = super().encode(images)
        latents[2, 1, 1] = float("nan")
        return latents


def test_bad_input_is_one_line_and_finished_work_is_kept(images, tmp_path):
    (images / "10.png").write_bytes((images / "10.png").read_bytes()[:60])
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^\S*10\.png cannot be read as an image \([^\n]*\); replace it$"):
            encode_here(images, tmp_path / "store", num_workers=workers)
    assert list((tmp_path / "store.partial").glob("*.safetensors"))
    with pytest.raises(UserError, match=r"^the latent of 02 is not finite[^\n]*$"):
        encode_here(images, tmp_path / "nan", NotANumber())
    Image.new("RGB", (SIZE, SIZE + 1)).save(images / "00.png")
    for resize in (False, True):
        with pytest.raises(UserError, match=r"00\.png is 8x9 pixels, and the generator takes 8x8; [^\n]*$"):
            encode_here(images, tmp_path / "size", resize=resize)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    with pytest.raises(UserError, match=r"full exists and is not empty[^\n]*$"):
        encode_here(images, tmp_path / "full")


class Drawer(FakeGenerator):
    """Draws latents and paints each image in one grey that tells its latent."""

    def __init__(self, fail_at=-1):
        super().__init__()
        self.calls_left = fail_at

    def sample_latents(self, n, generator):
        return torch.randn(n, 2, 3, generator=generator)

    def decode(self, latents, noise=None):
        if self.calls_left == 0:
            raise RuntimeError("the decoder broke")
        self.calls_left -= 1
        return latents.flatten(1).mean(1)[:, None, None, None].expand(-1, 3, SIZE, SIZE).tanh()


class Grey(torch.nn.Module):
    """Whether an image is bright, and its brightness in the unit scale of [-1, 1], beyond it for the brightest."""

    def forward(self, images):
        grey = images.mean((1, 2, 3))
        return torch.stack([grey, (2 * grey + 1) / 2, torch.zeros_like(grey)], 1)


BRIGHT = AttributeSchema((Attribute("Bright"), Attribute("Grey", "continuous", low=-1, high=1)))


def draw(out, generator=None, **options):
    judge = AttributeJudge(Grey(), BRIGHT, "grey", "f" * 16)
    return sample_and_label(40, judge, generator or Drawer(), out, accelerator="cpu", **options)


def test_drawn_rows_belong_to_their_index_and_carry_the_judges_labels(tmp_path):
    whole = draw(tmp_path / "whole", batch_size=40)
    with pytest.raises(RuntimeError, match="the decoder broke"):
        draw(tmp_path / "store", Drawer(fail_at=2), batch_size=7, shard_batches=1)
    resumed = Drawer(fail_at=6)
    draw(tmp_path / "store", resumed, batch_size=5)
    assert resumed.calls_left == 0  # 26 rows of 40 were left
    assert_same_store(whole, tmp_path / "store")
    store = LatentStore.open(whole)
    ids = []
    for name in store.sizes:
        latents, labels, names = store.split(name)
        grey = 2 * latents.flatten(1).mean(1).tanh()
        torch.testing.assert_close(labels[:, 0], (grey > 0).float())
        torch.testing.assert_close(labels[:, 1], grey.clamp(-1, 1))
        ids += names
    assert sorted(ids) == [f"{i:06d}" for i in range(40)]
    other = LatentStore.open(draw(tmp_path / "other", seed=1))
    assert not torch.equal(other.split("train").latents, store.split("train").latents)


def test_drawing_refuses_what_cannot_be(tmp_path):
    with pytest.raises(UserError, match=r"cannot sample latents[^\n]*$"):
        draw(tmp_path / "a", FakeGenerator())
    with pytest.raises(RuntimeError, match="broke"):
        draw(tmp_path / "b", Drawer(fail_at=1), batch_size=4, shard_batches=1)
    with pytest.raises(UserError, match="was started with other seed"):
        draw(tmp_path / "b", seed=3)
    zoo = load_attribute_judge()
    with pytest.raises(UserError, match="takes 64x64 images, the generator makes 8x8"):
        sample_and_label(4, zoo, Drawer(), tmp_path / "c")


def test_published_latents_go_into_a_store_as_they_are(tmp_path):
    rows = AnnotatedLatents(
        list("abcdef"), torch.zeros(6, 1), SCHEMA, ["train"] * 5 + ["test"], latents=torch.randn(6, 2, 3)
    )
    with pytest.warns(UserWarning, match="Odd is always 0"):
        path = store_rows(rows, FakeGenerator(), tmp_path / "store", source={"from": "here"})
    opened = LatentStore.open(path, FakeGenerator())
    assert (opened.sizes, opened.source) == ({"train": 5, "test": 1}, {"from": "here"})
    assert torch.equal(opened.split("test").latents, rows.latents[5:])


def test_a_drawing_goes_on_only_with_the_same_settings(tmp_path):
    class Set(Drawer):
        @property
        def settings(self):
            return {"noise": "random"}

    with pytest.raises(RuntimeError, match="broke"):
        draw(tmp_path / "store", Drawer(fail_at=2), batch_size=15, shard_batches=1)
    with pytest.raises(UserError, match="started with other generator settings"):
        draw(tmp_path / "store", Set())
    judge = AttributeJudge(Grey(), BRIGHT, "grey", "f" * 16)
    fewer = LatentStore.open(sample_and_label(12, judge, Drawer(), tmp_path / "store", accelerator="cpu"))
    assert sum(fewer.sizes.values()) == 12


def test_what_cannot_be_encoded_leaves_nothing_behind(images, tmp_path):
    stylegan2_pickle(tmp_path / "network.pkl")
    with pytest.raises(UserError, match="cannot encode images"):
        encode_here(images, tmp_path / "store", load_generator(tmp_path / "network.pkl"))
    assert not (tmp_path / "store.partial").exists()
    with pytest.raises(UserError, match="cannot sample latents"):
        draw(tmp_path / "store", FakeGenerator())
    assert not (tmp_path / "store.partial").exists()

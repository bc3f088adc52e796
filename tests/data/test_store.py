import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.rows import hash_splits
from lcg_lightning.data.space import standardize, unstandardize
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.errors import UserError

SCHEMA = AttributeSchema(
    (
        Attribute("Smiling"),
        Attribute("hair", "categorical", ("none", "short", "long")),
        Attribute("yaw", "continuous", low=-90, high=90),
    )
)


def split(n, start=0, shape=(2, 3)):
    g = torch.Generator().manual_seed(start)
    latents = torch.randn(n, *shape, generator=g) * torch.logspace(-3, 3, 3) + 100
    latents[:, 0, 0] = 0.1
    labels = torch.stack([torch.arange(n) % 2, torch.arange(n) % 3, torch.arange(n) / n - 45], 1)
    labels[:1] = torch.nan
    return Split(latents, labels, [str(i) for i in range(start, start + n)])


@pytest.fixture
def store(tmp_path):
    splits = {"train": split(9000), "val": split(0, 9000), "test": split(7, 9000)}
    return write_store(tmp_path / "store", splits, SCHEMA, "abc", {"images": "here"})


def maker(fingerprint, latent_shape=(2, 3)):
    return SimpleNamespace(fingerprint=fingerprint, latent_shape=latent_shape)


def test_round_trip_and_standardization(store):
    opened = LatentStore.open(store, maker("abc"))
    assert (opened.schema, opened.fingerprint, opened.source) == (SCHEMA, "abc", {"images": "here"})
    assert opened.sizes == {"train": 9000, "test": 7}
    for name, expected in (("train", split(9000)), ("test", split(7, 9000))):
        got = opened.split(name)
        torch.testing.assert_close(got.latents, expected.latents, rtol=0, atol=0)
        torch.testing.assert_close(got.labels, expected.labels, rtol=0, atol=0, equal_nan=True)
        assert list(got.ids) == expected.ids
        assert got.ids[-3:] == expected.ids[-3:]
    latents = opened.split("train").latents
    z = standardize(latents.double(), opened.mean, opened.std)
    assert z.shape == (9000, 6)
    torch.testing.assert_close(z.mean(0), torch.zeros(6).double(), rtol=0, atol=1e-9)
    spread = torch.tensor([0.0, 1, 1, 1, 1, 1]).double()  # the first dimension never varies
    torch.testing.assert_close(z.std(0, correction=0), spread, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        unstandardize(standardize(latents, opened.mean, opened.std), opened.mean, opened.std), latents
    )


def test_ids_of_any_characters_are_counted_without_reading_them(tmp_path):
    odd = ['a"b', "c\\", '", "', '\\"', '\\\\"', ", ", "é\n", "", "[]"]
    latents, labels, _ = split(len(odd))
    rows = {"train": Split(latents, labels, odd)}
    ids = LatentStore.open(write_store(tmp_path / "store", rows, SCHEMA, "abc", {})).split("train").ids
    assert len(ids) == len(odd)
    assert list(ids) == odd


def test_split_depends_on_the_id_alone_and_keeps_its_fractions():
    ids = [f"{i:05d}" for i in range(20000)]
    splits = hash_splits(ids)
    assert hash_splits(ids[::-1]) == splits[::-1]
    for name, fraction in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert splits.count(name) / 20000 == pytest.approx(fraction, abs=4 * (fraction * (1 - fraction) / 20000) ** 0.5)


def broken(**changes):
    part = split(5)
    for field, (where, value) in changes.items():
        getattr(part, field)[where] = value
    return part


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (broken(latents=((3, 1, 2), torch.nan)), split(2, 5), "latent of 3 is not finite"),
        (broken(latents=((4, 0, 1), -torch.inf)), split(2, 5), "latent of 4 is not finite"),
        (split(5), split(2, 5, shape=(1, 3)), r"test latents have shape \(2, 1, 3\), expected \(2, 2, 3\)"),
        (split(5), split(2, 4), "id 4 occurs in the store twice"),
        (split(0), split(2, 4), "needs rows in train"),
        (broken(labels=((2, 0), -1.0)), split(2, 5), "Smiling of 2 is -1, not a whole number in"),
        (broken(labels=((2, 1), 1.5)), split(2, 5), "hair of 2 is 1.5, not a whole number in"),
        (broken(labels=((1, 1), 3.0)), split(2, 5), "hair of 1 is 3, not a whole number in"),
        (broken(labels=((4, 2), 90.5)), split(2, 5), r"yaw of 4 is 90.5, not a number in \[-90, 90\]"),
        (Split(torch.zeros(2, 6), torch.zeros(2, 2), ["a", "b"]), split(0), r"labels have shape \(2, 2\)"),
    ],
)
def test_bad_rows_are_refused_and_leave_nothing_behind(tmp_path, train, test, message):
    with pytest.raises(UserError, match=message) as error:
        write_store(tmp_path / "store", {"train": train, "test": test}, SCHEMA, "abc", {})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def edit(path, **changes):
    about = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps(about | changes))


def other_latents(path):
    save_file({"latents": torch.zeros(7, 6), "labels": torch.zeros(7, 3)}, path / "test.safetensors", {"ids": "[]"})


def cut(path):
    file = path / "test.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def zeroed(path):
    """The last latents become zeros, which are finite numbers."""
    file = path / "test.safetensors"
    file.write_bytes(file.read_bytes()[:-108] + bytes(108))


def flipped(path):
    file = path / "test.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def swapped(path):
    """By the test split of a store of other latents with the same ids."""
    other = Split(split(7, 1).latents, *split(7, 9000)[1:])
    write_store(path.parent / "other", {"train": split(5), "test": other}, SCHEMA, "abc", {})
    (path.parent / "other/test.safetensors").replace(path / "test.safetensors")


def rewrite(path, names=None, **values):
    """A value put into the first row, or other ids, in a file that is otherwise as it was."""
    latents, labels, ids = split(7, 9000)
    tensors = {"latents": latents, "labels": labels}
    for name, value in values.items():
        tensors[name][0, 0] = value
    save_file(tensors, path / "test.safetensors", {"ids": json.dumps(ids) if names is None else names})


def repeat(path, key):
    text = (path / "store.json").read_text()
    (path / "store.json").write_text(f'{{"{key}": "def", {text[1:]}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "store.json").unlink(), "is not a latent store"),
        (lambda path: (path / "store.json").write_text("{"), "store.json is damaged"),
        (lambda path: (path / "store.json").write_text("{}"), "not a store of format 1 or 2"),
        (lambda path: edit(path, mean=[1.0]), "store.json is damaged"),
        (lambda path: edit(path, std=[0.0] * 6), "not finite and positive"),
        (lambda path: edit(path, mean=[float("nan")] * 6), "not finite and positive"),
        (lambda path: edit(path, schema=[{"name": "a"}]), "does not hold what store.json says"),
        (lambda path: edit(path, latent_shape=[3, 2]), "does not hold what store.json says"),
        (lambda path: (path / "test.safetensors").unlink(), "test.safetensors is damaged"),
        (other_latents, "does not hold what store.json says"),
        (cut, "test.safetensors is damaged"),
        (zeroed, "test.safetensors is not the file that was written"),
        (flipped, "test.safetensors is not the file that was written"),
        (swapped, "test.safetensors is not the file that was written"),
        (lambda path: rewrite(path, latents=torch.nan), "test.safetensors: the latent of 9000 is not finite"),
        (lambda path: rewrite(path, latents=-torch.inf), "test.safetensors: the latent of 9000 is not finite"),
        (lambda path: rewrite(path, labels=7.0), "test.safetensors: Smiling of 9000 is 7, not a whole number in"),
        (lambda path: edit(path, sha256=[]), "train.safetensors is not the file that was written"),
        (lambda path: edit(path, sha256="none"), "store.json is damaged"),
        (lambda path: edit(path, schema=[{"name": "a"}] * 2), "store.json is damaged .attribute a is named twice"),
        (lambda path: edit(path, latent_shape=[10**30]), "store.json is damaged"),
        (lambda path: edit(path, mean=[0.5] * 6), "store.json is not as it was written"),
        (lambda path: edit(path, fingerprint="abd"), "store.json is not as it was written"),
        (lambda path: repeat(path, "fingerprint"), "the key 'fingerprint' is given twice"),
    ],
)
def test_damaged_stores_are_refused(store, damage, message):
    damage(store)
    with pytest.raises(UserError, match=message) as error:
        LatentStore.open(store)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_wrong_generator_missing_split_and_occupied_folder_are_refused(store):
    with pytest.raises(UserError, match=r"latents of another generator \(abc, not def\)[^\n]*$"):
        LatentStore.open(store, maker("def"))
    with pytest.raises(UserError, match=r"of shape \(2, 3\), but the generator takes \(3,\); load[^\n]*$"):
        LatentStore.open(store, maker("abc", (3,)))
    with pytest.raises(UserError, match=r"has no val split \(it has train, test\)$"):
        LatentStore.open(store).split("val")
    before = {file.name: file.read_bytes() for file in store.iterdir()}
    with pytest.raises(UserError, match=r"exists and is not empty[^\n]*$"):
        write_store(store, {"train": split(5)}, SCHEMA, "def", {})
    assert {file.name: file.read_bytes() for file in store.iterdir()} == before


def test_given_statistics_whiten_and_constant_labels_are_told(tmp_path):
    mean, std = torch.arange(6.0).view(2, 3).double(), torch.full((2, 3), 2.0).double()
    rows = split(50)
    rows.labels[:, 0] = 1
    rows.labels[:, 1] = torch.nan
    with pytest.warns(UserWarning, match="nothing can be learnt") as told:
        path = write_store(tmp_path / "store", {"train": rows}, SCHEMA, "abc", {}, (mean, std))
    first, second = SCHEMA.names[:2]
    assert [str(w.message).split(";")[0] for w in told] == [
        f"{first} is always 1 in the train split",
        f"{second} is never known in the train split",
    ]
    store = LatentStore.open(path)
    torch.testing.assert_close(
        standardize(rows.latents, store.mean, store.std), ((rows.latents - mean) / std).float().flatten(1)
    )
    with pytest.raises(UserError, match="statistics have shape"):
        write_store(tmp_path / "other", {"train": rows}, SCHEMA, "abc", {}, (mean[0], std[0]))


def first_format(path):
    """As stores were before they had checksums."""
    about = json.loads((path / "store.json").read_text())
    del about["sha256"], about["content"]
    (path / "store.json").write_text(json.dumps(about | {"format": 1}))
    return path


def test_a_store_of_the_first_format_is_read_and_its_rows_are_checked(store):
    now = LatentStore.open(store)
    before = LatentStore.open(first_format(store))
    assert before.content_hash == now.content_hash
    assert torch.equal(before.split("test").latents, now.split("test").latents)
    rewrite(store, labels=7.0)
    with pytest.raises(UserError, match="Smiling of 9000 is 7"):
        LatentStore.open(store)


@pytest.mark.parametrize("names", ['["9000"]', "[", "{}"])
def test_ids_that_are_not_those_of_the_rows_are_refused_when_one_is_asked_for(store, names):
    rewrite(first_format(store), names)  # later formats have a checksum, which tells on opening
    ids = LatentStore.open(store).split("test").ids
    assert len(ids) == 7
    with pytest.raises(UserError, match=r"test.safetensors is damaged \(it does not name its 7 rows\)[^\n]*$"):
        ids[0]


def test_the_content_hash_tells_content_and_nothing_else(tmp_path):
    def made(name, latents=0.0, label=1.0, fingerprint="abc", source="here"):
        rows = split(50)
        rows.latents[3, 1, 1] += latents
        rows.labels[3, 0] = label
        path = write_store(tmp_path / name, {"train": rows}, SCHEMA, fingerprint, {"from": source})
        return LatentStore.open(path).content_hash

    one = made("a")
    assert len(one) == 16
    assert int(one, 16)
    assert made("b", source="there") == one
    others = [made("c", latents=1e-3), made("d", label=0.0), made("e", fingerprint="abd")]
    assert len({one, *others}) == 4

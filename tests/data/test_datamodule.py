import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.distributed import UnpaddedSampler
from lcg_lightning.data.store import Split, write_store
from lcg_lightning.errors import UserError
from tests.data.fit_run import Notes, trainer

SCRIPT = Path(__file__).with_name("fit_run.py")
SCHEMA = AttributeSchema((Attribute("Smiling"),))


def rows(n, start):
    g = torch.Generator().manual_seed(start)
    latents = torch.randn(n, 2, 3, generator=g) * 5 + 3
    return Split(latents, torch.arange(n).remainder(2).float()[:, None], [str(start + i) for i in range(n)])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    splits = {"train": rows(20, 0), "val": rows(7, 20), "test": rows(7, 27)}
    return write_store(tmp_path_factory.mktemp("data") / "store", splits, SCHEMA, "abc", {})


def flat(batches):
    return [row for batch in batches for row in batch]


def test_batches_are_standardized_rows_of_the_split(store):
    data = LatentDataModule(store, batch_size=8, seed=1)
    assert (data.latent_dim, data.latent_shape, data.attributes) == (6, (2, 3), SCHEMA.to_json())
    train = rows(20, 0).latents.double()
    expected = ((train - train.mean(0)) / train.std(0, correction=0)).flatten(1)
    batches = list(data.train_dataloader())
    assert [len(b["index"]) for b in batches] == [8, 8]
    for batch in batches:
        torch.testing.assert_close(batch["latents"].double(), expected[batch["index"]], rtol=1e-5, atol=1e-5)
        assert batch["latents"].dtype == torch.float32
        torch.testing.assert_close(batch["labels"][:, 0], batch["index"].remainder(2).float())
    assert [b["index"].tolist() for b in data.test_dataloader()] == [list(range(7))]
    small = list(LatentDataModule(store, batch_size=32).train_dataloader())
    assert sorted(flat(b["index"].tolist() for b in small)) == list(range(20))
    with pytest.raises(UserError, match="batch_size is 0"):
        LatentDataModule(store, batch_size=0)


def test_resumed_run_sees_the_order_it_would_have_seen(store, tmp_path):
    whole, first, resumed, other = Notes(), Notes(), Notes(), Notes()
    trainer(3, enable_checkpointing=False).fit(whole, LatentDataModule(store, batch_size=6, seed=3))
    begun = trainer(1, default_root_dir=tmp_path)
    begun.fit(first, LatentDataModule(store, batch_size=6, seed=3))
    begun.save_checkpoint(tmp_path / "last.ckpt")
    rest = trainer(3, default_root_dir=tmp_path)
    rest.fit(resumed, LatentDataModule(store, batch_size=6, seed=3), ckpt_path=tmp_path / "last.ckpt")
    trainer(1, enable_checkpointing=False).fit(other, LatentDataModule(store, batch_size=6, seed=8))
    for epoch in ("train0", "train1", "train2"):
        assert whole.rows[epoch] == (first if epoch == "train0" else resumed).rows[epoch]
    assert "train0" not in resumed.rows
    orders = [tuple(flat(r)) for r in (*(whole.rows[f"train{e}"] for e in range(3)), other.rows["train0"])]
    assert len(set(orders)) == 4


def test_two_processes_share_the_rows(store, tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, SCRIPT, store, tmp_path]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for stage in ("val", "test"):
        shares = [flat(rank[stage]) for rank in seen]
        assert sorted(len(share) for share in shares) == [3, 4]
        assert sorted(flat(shares)) == list(range(7))
    epochs = []
    for epoch in ("train0", "train1"):
        shares = [flat(rank[epoch]) for rank in seen]
        assert [len(share) for share in shares] == [9, 9]  # 20 rows: 10 a process, in full batches of 3
        assert len(set(flat(shares))) == 18
        epochs.append(shares)
    assert epochs[0] != epochs[1]
    assert [len(flat(rank["fit_val"])) for rank in seen] == [8, 8]  # two epochs of 7 rows, padded to 8


@pytest.mark.parametrize(("n", "world", "block"), [(7, 2, 1), (7, 3, 2), (10, 4, 3), (2, 3, 4), (0, 2, 1)])
def test_unpadded_shares_cover_each_row_once_and_keep_blocks_whole(n, world, block):
    values = list(range(100, 100 + n))
    shares = [list(UnpaddedSampler(values, world, rank, block)) for rank in range(world)]
    assert sorted(flat(shares)) == values
    blocks = {tuple(values[i : i + block]) for i in range(0, n, block)}
    assert {tuple(s[i : i + block]) for s in shares for i in range(0, len(s), block)} == blocks

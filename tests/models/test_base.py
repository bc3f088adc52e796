import csv

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.errors import UserError
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.prior import LatentPrior
from tests import toy_latents
from tests.toy_latents import SCHEMA, D


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("latent_dim", v) for v in (0, None)),
        *((name, 0) for name in ("hidden", "time_hidden", "num_steps", "decay_steps", "buckets", "lr")),
        *((name, -1) for name in ("lr", "weight_decay", "warmup_steps", "decay_steps", "ema_decay", "hidden")),
        *((name, float("nan")) for name in ("lr", "weight_decay", "ema_decay")),
        ("layers", 1),
        ("ema_decay", 1),
        ("ema_decay", 2),
        ("lr", float("inf")),
    ],
)
def test_impossible_arguments_are_refused_by_name(name, value):
    kind, given = (LatentPrior, {}) if name != "buckets" else (LatentClassifier, {"attributes": SCHEMA.to_json()})
    with pytest.raises(UserError, match=f"^{name} is {value}; it must be"):
        kind(**{"latent_dim": D, **given, name: value})


def test_the_smallest_arguments_work():
    small = {"hidden": 1, "layers": 2, "num_steps": 1, "warmup_steps": 0, "decay_steps": 1, "ema_decay": 0.0}
    prior = LatentPrior(1, time_hidden=1, weight_decay=0.0, **small)
    classifier = LatentClassifier(1, SCHEMA.to_json(), buckets=1, **small)
    for module in (prior, classifier):
        assert module(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)).isfinite().all()


class Losses(Callback):
    def __init__(self):
        self.all = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.all.append(float(outputs["loss"]))


def test_losses_are_logged_at_the_interval_and_can_be_monitored_in_mixed_precision_with_clipping(tmp_path):
    store = toy_latents.write(tmp_path / "store", 200)
    losses, best = Losses(), ModelCheckpoint(tmp_path, monitor="train/loss", save_on_train_epoch_end=True)
    L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        limit_val_batches=0,
        log_every_n_steps=4,
        logger=CSVLogger(tmp_path),
        callbacks=[losses, best],
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(LatentPrior(D, hidden=16, layers=3), LatentDataModule(store, batch_size=32))
    with next(tmp_path.glob("**/metrics.csv")).open() as file:
        logged = [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file)]
    steps = range(3, 18, 4)
    assert logged == [(step, pytest.approx(losses.all[step])) for step in steps]
    assert float(best.best_model_score) == pytest.approx(min(losses.all[5::6]))  # the last of an epoch's six batches

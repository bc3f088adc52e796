"""Fits, validates and tests a module that notes which rows each process sees; run as a script under DDP."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lcg_lightning.data.datamodule import LatentDataModule


class Notes(LightningModule):
    """Keeps the rows of every batch by stage, and for training by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)
        self.rows: dict[str, list[list[int]]] = {}

    def note(self, stage, batch):
        self.rows.setdefault(stage, []).append(batch["index"].tolist())

    def training_step(self, batch, batch_idx):
        self.note(f"train{self.current_epoch}", batch)
        return self.layer(batch["latents"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.note("fit_val" if self.trainer.training or self.trainer.state.fn == "fit" else "val", batch)

    def test_step(self, batch, batch_idx):
        self.note("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(epochs: int, **options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet, **options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    store, out = Path(sys.argv[1]), Path(sys.argv[2])
    notes, data = Notes(), LatentDataModule(store, batch_size=3, seed=4)
    run = trainer(2, devices=2, strategy="ddp", enable_checkpointing=False)
    run.fit(notes, data)
    run.validate(notes, data)
    run.test(notes, data)
    (out / f"{run.global_rank}.json").write_text(json.dumps(notes.rows))
    run.strategy.barrier()

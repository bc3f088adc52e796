"""A small world for evaluations: latents that the zoo's generator sampled, and methods that need no network."""

import torch
from lightning.pytorch import Trainer
from torch import nn

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.store import Split, write_store
from lcg_lightning.evaluation.module import Evaluation
from lcg_lightning.generators.load import load_generator
from lcg_lightning.methods.base import Method
from lcg_lightning.synthfaces.faces import SCHEMA

SIZES = {"train": 24, "val": 12, "test": 10}


def write(path, sizes=SIZES):
    """Random labels: which attributes a sample is asked for is all that they decide."""
    generator, g = load_generator("synthfaces"), torch.Generator().manual_seed(0)
    splits = {}
    for name, n in sizes.items():
        labels = SCHEMA.natural(torch.randint(0, 2, (n, len(SCHEMA)), generator=g).float())
        splits[name] = Split(generator.sample_latents(n, g), labels, [f"{name}{i}" for i in range(n)])
    return write_store(path, splits, SCHEMA, generator.fingerprint, {})


def run(store, task, method, out, trainer=None, batch_size=4, **options):
    """Runs an evaluation, as ``lcg test`` does."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = trainer or Trainer(accelerator="cpu", logger=False, **quiet)
    module = Evaluation(task, method, out=out, **options)
    trainer.test(module, datamodule=LatentDataModule(store, batch_size), verbose=False)
    return module


class Constant(Method):
    """Answers every sample with one latent."""

    name = "constant"

    def __init__(self, value=0.0):
        super().__init__(value=value)
        self.value = value

    def prepare(self, store, space):
        self.network, self.dim = nn.Linear(1, 1), space.dim
        nn.init.constant_(self.network.weight, self.value)
        nn.init.zeros_(self.network.bias)

    def generate(self, condition, noise):
        return torch.full((len(noise.index), self.dim), self.value)

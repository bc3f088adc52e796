"""Training steps through Lightning against a bare loop, and our loader against PyTorch's.

The bare loop does what training needs and no more: random rows, noise, loss, clipping, fused AdamW, an average of the
weights by one foreach call. "Bare module" is the same in a LightningModule: its cost over the bare loop is Lightning's
own. Timed are steps after the first ones, without set-up, validation and checkpoints.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.measure import Row, compare, take_turns
from benchmarks.speed.stores import SCHEMA, random_store
from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.space import standardize
from lcg_lightning.diffusion.schedule import make_schedule, q_sample
from lcg_lightning.models.base import LatentModule
from lcg_lightning.models.classifier import LatentClassifier, label_log_probs
from lcg_lightning.models.prior import LatentPrior

AT_LEAST, BATCH, ROUNDS = 0.9, 256, 5
SIZES = {"demo": (128, 512, 4, 60), "DiffAE": (512, 2048, 10, 4)}
"""Latent width, hidden width, layers, timed steps."""
TINY = {"tiny": (8, 16, 3, 3)}
WARM = 2

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, latents, labels) to a scalar."""


def rows(tiny: bool) -> list[Row]:
    found = []
    for size, (dim, hidden, layers, steps) in (TINY if tiny else SIZES).items():
        with tempfile.TemporaryDirectory() as folder:
            store = random_store(Path(folder, "store"), 1_000 if tiny else 10_000, dim)
            options: dict[str, Any] = {"latent_dim": dim, "hidden": hidden, "layers": layers, "decay_steps": 1000}
            prior = LatentPrior(**options)
            classifier = LatentClassifier(attributes=SCHEMA.to_json(), **options)
            for name, module, loss in (
                ("prior", prior, prior_loss(prior)),
                ("classifier", classifier, nll(classifier)),
            ):
                found += of_module(f"{name}, {size}: {dim}-d x {hidden} x {layers}", module, loss, store, steps)
            found.append(loading(f"loader, {size}: rows of {dim}", store))
    return found


def prior_loss(prior: LatentPrior) -> Loss:
    levels = make_schedule("linear").alpha_bar

    def loss(net: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
        t, eps = torch.randint(len(levels), (len(z),)), torch.randn_like(z)
        a = levels[t]
        noised = q_sample(z, a, eps)
        signal, noise = a.sqrt().float()[:, None], (1 - a).sqrt().float()[:, None]
        return (noise * noised + signal * net(noised, t) - eps).square().mean()

    return loss


def nll(classifier: LatentClassifier) -> Loss:
    levels = make_schedule("linear").alpha_bar

    def loss(net: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
        t, eps = torch.randint(len(levels), (len(z),)), torch.randn_like(z)
        return -label_log_probs(net.trunk(q_sample(z, levels[t], eps), t), labels, SCHEMA).sum(1).mean()

    return loss


def of_module(where: str, module: LatentModule, loss: Loss, store: Path, steps: int) -> list[Row]:
    data = LatentDataModule(store, BATCH)
    latents, labels, _ = data.store.split("train")
    z = standardize(latents, data.store.mean, data.store.std)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for index in torch.randperm(len(z)).split(BATCH)[: len(z) // BATCH]:
                yield z[index], labels[index]

    def bare() -> float:
        net, average = copy.deepcopy(module.net), copy.deepcopy(module.ema)
        parameters, averages = list(net.parameters()), list(average.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=5e-4, fused=True)
        begin = 0.0
        for step, (x, y) in enumerate(batches()):
            if step == WARM:
                begin = time.perf_counter()
            if step == WARM + steps:
                return time.perf_counter() - begin
            optimizer.zero_grad()
            loss(net, x, y).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, 0.001)
        raise AssertionError

    def through(made: Callable[[], L.LightningModule], source: Any) -> float:
        clock = Clock()
        L.Trainer(
            max_steps=WARM + steps,
            max_epochs=-1,
            accelerator="cpu",
            devices=1,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[clock],
        ).fit(made(), source)
        return clock.seconds

    loader = DataLoader(TensorDataset(z, labels), BATCH, shuffle=True, drop_last=True)
    costs = take_turns(
        {
            "through Lightning": lambda: through(lambda: copy.deepcopy(module), data),
            "bare loop": bare,
            "bare module": lambda: through(lambda: Bare(module, loss), loader),
        },
        ROUNDS,
    )
    costs = {name: [seconds / steps for seconds in each] for name, each in costs.items()}
    lightning = compare(f"{where}: Lightning itself", costs, "bare module", "bare loop", note="its own cost")
    return [compare(where, costs, "through Lightning", "bare loop", at_least=AT_LEAST), lightning]


class Clock(Callback):
    """Seconds of the steps that follow the first ones."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == WARM:
            self.begin = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.begin


class Bare(L.LightningModule):
    """The bare loop's work in Lightning's hands."""

    def __init__(self, module: LatentModule, loss: Loss) -> None:
        super().__init__()
        self.net, self.average, self.loss = copy.deepcopy(module.net), copy.deepcopy(module.ema), loss

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.loss(self.net, *batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.pair = list(self.average.parameters()), list(self.net.parameters())
        return torch.optim.AdamW(self.net.parameters(), lr=5e-4, fused=True)

    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(*self.pair, 0.001)


def loading(where: str, store: Path) -> Row:
    data = LatentDataModule(store, BATCH)
    latents, labels, _ = data.store.split("train")
    theirs = TensorDataset(standardize(latents, data.store.mean, data.store.std), labels)
    loaders = {
        "LatentDataModule": data.train_dataloader(),
        "DataLoader + TensorDataset": DataLoader(theirs, BATCH, shuffle=True, drop_last=True),
    }

    def one_epoch(loader: Any) -> Callable[[], None]:
        def run() -> None:
            for _ in loader:
                pass

        return run

    costs = take_turns({name: one_epoch(loader) for name, loader in loaders.items()})
    n = len(latents) // BATCH * BATCH
    row = compare(where, costs, *loaders, faster=True)
    assert row.costs is not None
    note = "rows/s: {:,.0f} and {:,.0f}; ours standardizes as it goes".format(*(n / seconds for seconds in row.costs))
    return compare(where, costs, *loaders, faster=True, note=note)

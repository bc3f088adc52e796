"""The likelihood of results: what a prior and a classifier say themselves, and frequencies counted by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import conjunction, log_prob, parse
from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.store import LatentStore
from lcg_lightning.evaluation.metrics.base import Setting
from lcg_lightning.evaluation.metrics.likelihood import Bound, OnManifold, log_frequency
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.load import load_classifier, load_prior
from lcg_lightning.models.prior import LatentPrior
from lcg_lightning.synthfaces.faces import SCHEMA
from tests.evaluation import exact


def test_frequency_of_a_condition_is_counted_and_never_zero():
    schema = AttributeSchema((Attribute("Hat"), Attribute("Age", "continuous", low=0, high=10)))
    labels = torch.tensor([[1.0, 5.0], [1.0, 5.9], [1.0, 9.0], [0.0, 5.0]])
    asked = conjunction(torch.tensor([[1.0, math.nan], [1.0, 5.0], [0.0, 9.0]]), schema)
    expected = [3.5 / 5, 2.5 / 5 / 0.2, 0.5 / 5 / 0.2]  # three, two and none of four; numbers are densities
    assert log_frequency(asked, labels, 3, schema).exp().tolist() == pytest.approx(expected)
    either = log_frequency(parse("Hat | ~Hat & Hat", schema), labels, 2, schema)
    assert either.exp().tolist() == pytest.approx([3.5 / 5] * 2)


def test_bound_is_what_its_networks_say(tmp_path):
    store = LatentStore.open(exact.write(tmp_path / "store", {"train": 64, "val": 16, "test": 16}))
    files = {}
    for name, model in {
        "prior": LatentPrior(64, hidden=16, layers=2, time_hidden=8),
        "classifier": LatentClassifier(64, SCHEMA.to_json(), hidden=16, layers=2),
    }.items():
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        trainer = Trainer(accelerator="cpu", max_epochs=1, **quiet)
        trainer.fit(model, LatentDataModule(tmp_path / "store", batch_size=32))
        trainer.save_checkpoint(files.setdefault(name, tmp_path / f"{name}.ckpt"))
    rows, index = store.split("test"), torch.arange(16)
    z = ((rows.latents - store.mean) / store.std).float()
    asked = parse("Smiling | Hat", SCHEMA)
    samples = SimpleNamespace(result=SimpleNamespace(z=z), index=index, asked=asked, met_before=None)
    found = {}
    for metric in (OnManifold(files["prior"]), Bound(files["prior"], files["classifier"])):
        metric.prepare(Setting(SCHEMA, store=store))
        assert [column.higher_is_better for column in metric.columns] == [None]  # no ranks
        metric.update(samples)
        found |= metric.compute()
    elbo = load_prior(files["prior"], store).elbo(z, index).double()
    classifier = load_classifier(files["classifier"], store)
    shown = log_prob(asked, classifier(z, torch.zeros(16)), SCHEMA).double()
    train = store.split("train").labels
    either = ((train[:, SCHEMA.index("Smiling")] == 1) | (train[:, SCHEMA.index("Hat")] == 1)).sum().item()
    assert found["elbo"].value == pytest.approx(elbo.mean().item(), rel=1e-5)
    expected = (elbo + shown).mean().item() - math.log((either + 0.5) / 65)
    assert found["bound"].value == pytest.approx(expected, rel=1e-5)

"""A fit of a second: forty latents of width 4 and a prior of two small layers."""

import pytest
import torch
import yaml

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.store import Split, write_store


@pytest.fixture
def small_fit(tmp_path):
    """A folder with a store and ``fit.yaml``, the configuration of a fit on it."""
    schema = AttributeSchema([Attribute("Smiling")])
    rows = torch.Generator().manual_seed(0)
    parts = {
        name: Split(
            torch.randn(n, 4, generator=rows), (torch.arange(n) % 2.0)[:, None], [f"{name}{i}" for i in range(n)]
        )
        for name, n in {"train": 32, "val": 8}.items()
    }
    write_store(tmp_path / "store", parts, schema, "0" * 16, {})
    config = {
        "model": {"class_path": "LatentPrior", "init_args": {"hidden": 8, "layers": 2}},
        "data": {"class_path": "LatentDataModule", "init_args": {"store": "store", "batch_size": 16}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config))
    return tmp_path

"""A small latent store whose answers are known: z ~ N(0, I) or two Gaussian modes, labels drawn given z."""

import torch
from lightning.pytorch import Trainer

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.store import Split, write_store
from tests.closed_forms import GaussianPrior

D = 4
SCHEMA = AttributeSchema(
    (
        Attribute("on"),
        Attribute("size", "continuous", low=10, high=20),
        Attribute("kind", "categorical", ("left", "middle", "right")),
    )
)
W = torch.tensor([2.0, -1.0, 0.0, 0.0], dtype=torch.float64)
V = torch.tensor([0.0, 0.1, 0.1, 0.0], dtype=torch.float64)
NOISE = 0.05
"""p(on | z) = sigmoid(W.z); size in unit scale is 0.5 + V.z + NOISE n; kind: the third of the line of z_3."""
MODE = torch.tensor([1.5, 1.5, 0.0, 0.0], dtype=torch.float64)
MODES = (
    GaussianPrior(MODE, 0.25 * torch.eye(D, dtype=torch.float64)),
    GaussianPrior(-MODE, 0.25 * torch.eye(D, dtype=torch.float64)),
)


def write(path, n=2000, modes=False):
    g = torch.Generator().manual_seed(3)

    def split(name, rows):
        z = torch.randn(rows, D, generator=g, dtype=torch.float64)
        if modes:
            z = 0.5 * z + MODE * (2.0 * torch.randint(2, (rows, 1), generator=g) - 1)
        on = torch.rand(rows, generator=g) < torch.sigmoid(z @ W)
        size = 10 + 10 * (0.5 + z @ V + NOISE * torch.randn(rows, generator=g)).clamp(0, 1)
        labels = torch.stack([on.double(), size, (z[:, 3] > -0.43).double() + (z[:, 3] > 0.43)], 1)
        labels[torch.rand(rows, 3, generator=g) < 0.1] = torch.nan
        return Split(z.float(), labels.float(), [f"{name}{i}" for i in range(rows)])

    splits = {"train": split("train", n), "val": split("val", min(n // 2, 1000)), "test": split("test", 201)}
    return write_store(path, splits, SCHEMA, "toy", {"toy": True})


def trainer(epochs=1, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    defaults = {"enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(max_epochs=epochs, accelerator="cpu", **{**defaults, **options}, **quiet)

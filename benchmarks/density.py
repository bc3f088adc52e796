"""The bound of a trained prior beside the true mean log p(w) of the exact world, at several curvatures.

The difference is what the prior has not learned. Both are in bits per dimension of the standardized latents.
"""

import math
from pathlib import Path

import jsonargparse
import torch
from rich.console import Console
from rich.table import Table

from lcg_lightning.cli import run
from lcg_lightning.commands.encode import encode
from lcg_lightning.data.sources.exact import ExactFaces
from lcg_lightning.data.store import LatentStore
from lcg_lightning.generators.exact import ExactWorld

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def density(out: Path = Path("runs/density"), train: int = 10000, epochs: int = 120, seed: int = 0) -> None:
    """Encode, fit and test at curvatures 0, 0.5 and 1.

    Args:
        out: folder of stores and checkpoints.
        train: training latents.
        epochs: of the prior.
        seed: of the prior.
    """
    console, rows = Console(), []
    for curvature in (0.0, 0.5, 1.0):
        folder = out / f"curvature-{curvature:g}"
        generator = {"path": "synthfaces-exact", "curvature": curvature}
        encode(folder / "store", ExactFaces(train=train), generator)
        shared = [
            f"--config={CONFIGS / 'prior/synthfaces.yaml'}",
            f"--data.init_args.store={folder / 'store'}",
            f"--trainer.default_root_dir={folder / 'prior'}",
        ]
        steps = epochs * (train // 256)
        fit = [f"--trainer.max_epochs={epochs}", f"--model.init_args.decay_steps={steps}"]
        run(["fit", *shared, *fit, f"--model.init_args.seed={seed}", f"--seed_everything={seed}"])
        tested = run(["test", *shared, f"--ckpt_path={folder / 'prior/last.ckpt'}"])
        store = LatentStore.open(folder / "store")
        latents = store.split("test").latents
        nats = ExactWorld(curvature).log_prob(torch.as_tensor(latents)) + store.std.log().sum()
        bits = -nats / (latents.shape[1] * math.log(2))
        truth, error = bits.mean().item(), bits.std().item() / math.sqrt(len(bits))
        bound = float(tested.trainer.callback_metrics["test/bpd"])
        rows.append((f"{curvature:g}", f"{truth:.3f} ± {error:.3f}", f"{bound:.3f}", f"{bound - truth:.3f}"))
    table = Table("curvature", "true", "prior's bound", "difference", title="bits per dimension")
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    jsonargparse.auto_cli(density, as_positional=False)

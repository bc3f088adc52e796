"""A generator's faces, latent store, trainings and evaluations, as jobs."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.jobs import Job

HERE = Path(os.path.relpath(Path(__file__).resolve().parent))  # relative, as records keep the command line
CONFIGS = HERE.parent / "configs"
SEEDED = {"prior", "classifier"}
"""Networks that are trained with every seed; the baselines' own are trained once."""

TRAINED = {
    "flow": "flow/synthfaces.yaml",
    "conditional": "prior/conditional.yaml",
    "prior": "prior/synthfaces.yaml",
    "clean": "classifier/clean.yaml",
    "classifier": "classifier/synthfaces.yaml",
}
"""The configuration that trains each network, the longest training first."""


class World:
    """One generator in a folder of its own.

    Args:
        name: what its jobs are called.
        folder: of its faces, store and networks.
        rows: split to the number of its rows.
        steps: of the training of each of its networks.
        seeds: trainings of prior and classifier.
        curvature: of the exact world; None for the zoo's StyleGAN2.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        rows: Mapping[str, int],
        steps: Mapping[str, int],
        seeds: int = 1,
        curvature: float | None = None,
    ) -> None:
        self.name, self.folder, self.rows, self.steps = name, folder, rows, steps
        self.seeds, self.curvature = seeds, curvature

    def faces(self) -> list[Job]:
        """The renders, where a generator encodes them."""
        if self.curvature is not None:
            return []
        out = self.folder / "faces"
        sizes = [f"--{split}={rows}" for split, rows in self.rows.items()]
        return [Job(f"{self.name}/faces", ("render", str(out), *sizes), out)]

    def store(self) -> Job:
        """The latent store."""
        out, faces = self.folder / "store", self.folder / "faces"
        if self.curvature is None:
            argv = (
                f"--config={CONFIGS / 'encode/synthfaces.yaml'}",
                f"--data.init_args.images={faces / 'images'}",
                f"--data.init_args.annotations={faces / 'attributes.txt'}",
                f"--data.init_args.measure_files=[{faces / 'pose.txt'},{faces / 'age.txt'}]",
                f"--data.init_args.partition={faces / 'splits.txt'}",
            )
        else:
            argv = (
                f"--config={CONFIGS / 'encode/synthfaces-exact.yaml'}",
                f"--generator.curvature={self.curvature}",
                *(f"--data.init_args.{split}={rows}" for split, rows in self.rows.items()),
            )
        return Job(f"{self.name}/store", ("encode", *argv, f"--out={out}"), out, tuple(self.faces()))

    def fits(self) -> Iterator[Job]:
        """Prior and classifier for every seed, the baselines' networks for the first."""
        for network, steps in self.steps.items():
            for seed in range(self.seeds if network in SEEDED else 1):
                out = self.checkpoint(network, seed).parent
                argv = (
                    "fit",
                    f"--config={CONFIGS / TRAINED[network]}",
                    f"--data.init_args.store={self.folder / 'store'}",
                    f"--seed_everything={seed}",
                    *([f"--model.init_args.seed={seed}"] if network in SEEDED else []),
                    "--trainer.max_epochs=-1",
                    f"--trainer.max_steps={steps}",
                    f"--model.init_args.decay_steps={steps}",
                    "--trainer.check_val_every_n_epoch=10",
                    "--trainer.enable_progress_bar=false",
                    f"--trainer.default_root_dir={out}",
                )
                yield Job(f"{self.name}/{network}-{seed}", argv, out, (self.store(),))

    def checkpoint(self, network: str, seed: int) -> Path:
        """Where a network's training leaves it."""
        return self.folder / (f"{network}-{seed}" if seed else network) / "last.ckpt"

    def evaluation(
        self, name: str, out: Path, task: str, method: str, n: int, options: Mapping[str, Any], *more: str
    ) -> Job:
        """One evaluation of n samples by a method with these options; ``more`` goes to ``lcg test`` as it is."""
        options = dict(options)
        if self.curvature is None:
            base, place = "base", f"--model.init_args.images={self.folder / 'faces/images'}"
            options |= {"faces": self.folder / "faces"} if method == "oracle" else {}
        else:
            base, place = "exact", f"--model.init_args.generator.curvature={self.curvature}"
        argv = (
            "test",
            f"--config={CONFIGS / f'evaluation/{base}.yaml'}",
            f"--config={CONFIGS / f'evaluation/{method}.yaml'}",
            f"--config={HERE / f'tasks/{task}.yaml'}",
            f"--data.init_args.store={self.folder / 'store'}",
            f"--model.init_args.out={out}",
            f"--model.init_args.n={n}",
            f"--model.init_args.label={method}",
            "--trainer.enable_progress_bar=false",
            *(f"--model.init_args.method.init_args.{key}={value}" for key, value in options.items()),
            place,
            *more,
        )
        used = [fit for fit in self.fits() if any(str(fit.out / "last.ckpt") in word for word in argv)]
        return Job(name, argv, out, (self.store(), *used))

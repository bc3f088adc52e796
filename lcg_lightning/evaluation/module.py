"""The evaluation module: one method on one task, judged by images, as ``lcg test`` runs it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning import LightningModule
from torch import Tensor, nn

from lcg_lightning.conditions import conjunction
from lcg_lightning.conditions import merge as merged
from lcg_lightning.data.datamodule import LatentBatch, LatentDataModule
from lcg_lightning.data.images import ImageFiles, ImageRef, find_images
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import figures
from lcg_lightning.evaluation.logs import log_picture, log_table
from lcg_lightning.evaluation.metrics import (
    AttributeAccuracy,
    Estimate,
    FrechetDistance,
    IdentityCosine,
    UntouchedDrift,
)
from lcg_lightning.evaluation.metrics.features import FeatureExtractor, load_inception
from lcg_lightning.evaluation.records import Record, collect_versions, git_commit, write
from lcg_lightning.evaluation.tasks import Task, caption, merge
from lcg_lightning.files import refuse_occupied
from lcg_lightning.formats.descriptions import plain_spec
from lcg_lightning.generators.load import in_zoo, load_generator
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network, refuse_size
from lcg_lightning.methods.base import Edit, Method

SHOWN = 16
"""Samples in the picture beside a record; half of it for strips of edits."""


class Evaluation(LightningModule):
    """Measures a method on a task and writes ``record.json`` and a picture into ``out``.

    Sample i asks for what the task makes of row i of the test split (modulo its length) and starts from noise that
    belongs to i, so figures do not depend on the batch size or the number of processes.

    Accuracy is the attribute judge's on the decoded images. Identity is the cosine between identity embeddings of
    the decoded source and of the decoded edit. The Fréchet distance, for tasks whose targets follow the data,
    compares with the test split: its image files where ``images`` is given, else its decoded latents.

    A generator that takes noise beside a latent, such as x_T, gets noise that belongs to the sample. Where a source's
    image file is given and the generator can invert it, source and edits share the noise that leads back to it.

    Args:
        task: what is asked.
        method: what answers.
        out: folder for the record and the picture; must be new or empty.
        n: samples; by default one for each row of the test split.
        seed: of the samples' noise.
        generator: zoo name, generator file, YAML file (path and options, or class_path and init_args), or the content
            of one.
        judge: attribute network: zoo name, YAML file, or its content (configs/judges, or class_path and init_args). By
            default the zoo's for a generator of the zoo, and none for any other: then no accuracy is measured.
        identity: identity network, likewise; without one no identity is measured.
        truncation_psi: answers and sources are drawn to the store's mean before decoding, mean + psi (w - mean); the
            data that the Fréchet distance compares with is not.
        images: folder or LMDB that holds the image files of the test split.
        resize: scale square image files to the generator's size instead of refusing them.
        features: what the Fréchet distance compares: features of the identity network, or Inception's.
        inception: weights file for ``features: inception``; clean-fid's own place by default.
        label: name of the method in tables; the method's own by default.
    """

    def __init__(
        self,
        task: Task,
        method: Method,
        out: Path = Path("runs/evaluation"),
        n: int | None = None,
        seed: int = 0,
        generator: str | dict[str, Any] = "synthfaces",
        judge: str | dict[str, Any] | None = None,
        identity: str | dict[str, Any] | None = None,
        truncation_psi: float = 1.0,
        images: Path | None = None,
        resize: bool = False,
        features: Literal["identity", "inception"] = "identity",
        inception: Path | None = None,
        label: str | None = None,
    ) -> None:
        super().__init__()
        if in_zoo(generator):
            judge, identity = judge or generator, identity or generator
        if judge is None and not (task.matches_data or (task.edits and identity)):
            raise UserError(f"evaluation: without a judge nothing can be measured on the task {task.name}; name one")
        if inception is not None and not (features == "inception" and task.matches_data):
            raise UserError(f"evaluation: inception {inception} is not used; set features: inception, or leave it out")
        if n is not None and n < 2:
            raise UserError(f"evaluation: n is {n}; ask for two or more samples")
        self.task, self.method, self.out, self.n, self.seed = task, method, Path(out), n, seed
        self.truncation_psi, self.images_folder, self.resize = truncation_psi, images, resize
        self.label = label or method.name
        self.generator_spec = plain_spec(generator)
        self.generator = load_generator(generator)
        self.judge = None if judge is None else load_attribute_judge(judge)
        self.identity = None if identity is None else load_identity_network(identity)
        for network in (self.judge, self.identity):
            if network is not None:
                refuse_size(network, self.generator.image_size)
        self.features: FeatureExtractor | None = None
        if task.matches_data:
            self.features = load_inception(inception) if features == "inception" else self.identity
            if self.features is None:
                raise UserError("evaluation: no identity network to take features from; set features: inception")

    def setup(self, stage: str) -> None:
        """Checks the pieces against each other and prepares the method."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, LatentDataModule):
            raise UserError("evaluation: data must be a LatentDataModule; set data.class_path")
        self.store = data.store
        self.space = self.store.space(self.generator)
        if self.judge is not None:
            self.judge = self.judge.select(self.store.schema)
        refuse_occupied(self.out)
        self.rows = self.store.sizes.get("test", 0)
        self.total = self.rows if self.n is None else self.n
        if self.rows < self.trainer.world_size:
            raise UserError(
                f"{self.store.path}: {self.rows} test rows for {self.trainer.world_size} processes; use fewer"
            )
        self.paths: list[ImageRef] = []
        if self.images_folder is not None:
            found = find_images(self.images_folder, self.generator.image_size)
            ids = self.store.split("test").ids
            if missing := [i for i in ids if i not in found]:
                raise UserError(
                    f"{self.images_folder}: no image for {missing[0]} and {len(missing) - 1} more test rows"
                )
            self.paths = [found[i] for i in ids]
        self.method.prepare(self.store, self.space)
        self.method.to(self.device).eval().requires_grad_(False)
        schema = self.store.schema
        self.accuracy, self.drift = AttributeAccuracy(schema), UntouchedDrift(schema)
        if self.features is not None:
            self.fid = FrechetDistance(self.features.num_features)
        steps = self.task.steps(self.store.split("test").labels[:1], torch.zeros(1, dtype=torch.int64), schema)
        self.cosines = nn.ModuleList(IdentityCosine() for _ in steps)
        self.seconds = 0.0
        self.shown: list[tuple[int, Tensor, list[str]]] = []

    def on_test_start(self) -> None:
        """Moves what :meth:`setup` made to the device."""
        self.to(self.device)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Generates or edits, decodes and judges the samples of a batch of rows."""
        if self.features is not None:
            real = self._files(batch["index"]) if self.paths else self._decode(batch["latents"], batch["index"])
            self.fid.update(self.features(real), batch["index"], real=True)
        for start in range(0, self.total, self.rows):
            index = batch["index"] + start
            keep = index < self.total
            if keep.any():
                self._judge(batch["latents"][keep], batch["labels"][keep], index[keep])

    def _judge(self, rows: Tensor, labels: Tensor, index: Tensor) -> None:
        schema = self.store.schema
        steps = self.task.steps(labels, index, schema)
        asked = merge(steps)
        begin = self._clock()
        results = self._answer(rows, steps, index)
        self.seconds += self._clock() - begin
        noise = self._image_noise(rows, index)
        images = [self._decode(self.truncation_psi * z, index, noise) for z in results]
        outputs = None if self.judge is None else self.judge(images[-1])
        if outputs is not None:
            self.accuracy.update(schema.predict(outputs), asked, index)
        if self.features is not None:
            self.fid.update(self.features(images[-1]), index, real=False)
        strip, words = [images[-1]], [[caption(row, schema)] for row in asked]
        if self.task.edits:
            source = self._decode(self.truncation_psi * rows, index, noise)
            if self.judge is not None and outputs is not None:
                self.drift.update(self.judge(source), outputs, asked, index)
            if self.identity is not None:
                who = self.identity.embed(source)
                for cosine, image in zip(self.cosines, images, strict=True):
                    cosine.update(who, self.identity.embed(image), index)  # type: ignore[operator]
            strip = [source, *images]
            words = [["source", *(caption(step[b], schema) for step in steps)] for b in range(len(rows))]
        for b in (index < SHOWN).nonzero()[:, 0].tolist():
            self.shown.append((int(index[b]), figures.shrink(torch.stack([s[b] for s in strip])).cpu(), words[b]))

    def _answer(self, rows: Tensor, steps: list[Tensor], index: Tensor) -> list[Tensor]:
        conditions = [conjunction(step, self.store.schema) for step in steps]
        if self.task.edits:
            return self.method.edit(rows, [Edit(c, merged(conditions[: k + 1])) for k, c in enumerate(conditions)])
        return [self.method.generate(conditions[0], SampleNoise(self.seed, index, self.space.dim, rows.device))]

    def _clock(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _decode(self, z: Tensor, index: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.space.decode_samples(z, self.seed, index) if noise is None else self.space.decode(z, noise)

    def _image_noise(self, rows: Tensor, index: Tensor) -> Tensor | None:
        """The noise (B, *noise_shape) with which source and edits are decoded, if it is not to be drawn."""
        if not (self.task.edits and self.paths and self.generator.can("invert")):
            return None
        latents = self.space.unstandardize(self.truncation_psi * rows)
        return self.generator.invert(self._files(index % self.rows), latents)

    def _files(self, index: Tensor) -> Tensor:
        """The image files (B, 3, H, W) of rows of the test split."""
        refs = [self.paths[i] for i in index.tolist()]
        files = ImageFiles(refs, self.generator.image_size, resize=self.resize)
        return torch.stack([files[i] for i in range(len(files))]).to(self.device)

    def on_test_epoch_end(self) -> None:
        """Computes the metrics on every process; the first writes the record and the picture."""
        metrics = self._metrics()
        for name, estimate in metrics.items():
            self.log(name, estimate.value, rank_zero_only=True)
        seconds = self.trainer.strategy.reduce(torch.tensor(self.seconds, device=self.device), reduce_op="max")
        shown = _gather(self.shown)
        if not self.trainer.is_global_zero:
            return
        sampler, nfe = self.method.sampler, self.method.nfe
        if self.task.edits:
            sampler, nfe = self.method.edit_sampler, len(self.cosines) * self.method.edit_nfe
        record = Record(
            task=self.task.name,
            method=self.label,
            config=self.method.config
            | {"task": self.task.config, "generator": self.generator_spec, "truncation_psi": self.truncation_psi},
            store_fingerprint=self.store.fingerprint,
            generator_fingerprint=self.generator.fingerprint,
            features=None if self.features is None else self.features.name,
            features_fingerprint=None if self.features is None else self.features.fingerprint,
            judge=_mark(self.judge),
            identity=_mark(self.identity) if self.task.edits else None,
            n=self.total,
            seed=self.seed,
            sampler=sampler,
            nfe=nfe,
            seconds=float(seconds),
            versions=collect_versions(),
            commit=git_commit(),
            metrics=metrics,
        )
        write(record, self.out / "record.json")
        picture = self.out / "samples.png"
        if self.task.edits:
            figures.strips([(images, words) for _, images, words in shown[: SHOWN // 2]], picture)
        else:
            captions = [words[0] for _, _, words in shown]
            figures.grid(torch.cat([images for _, images, _ in shown]), captions, 8, picture)
        for logger in self.loggers:
            log_table(logger, "record", [[k, v.value, v.low, v.high] for k, v in metrics.items()])
            log_picture(logger, "samples", picture)

    def _metrics(self) -> dict[str, Estimate]:
        found: dict[str, Estimate] = {} if self.judge is None else dict(self.accuracy.compute())
        if self.features is not None:
            found["fid"] = self.fid.compute()
        if self.task.edits and self.identity is not None:
            for k, cosine in enumerate(self.cosines):
                found[f"id/step{k + 1}"] = cosine.compute()  # type: ignore[operator]
            found["id"] = found[f"id/step{len(self.cosines)}"]
        if self.task.edits and self.judge is not None:
            found["drift"] = self.drift.compute()
        return found


def _mark(network: AttributeJudge | IdentityNetwork | None) -> str | None:
    return None if network is None else f"{network.name} @{network.fingerprint[:8]}"


def _gather(shown: list[tuple[int, Tensor, list[str]]]) -> Sequence[tuple[int, Tensor, list[str]]]:
    """The shown samples of all processes, in the order of their indices."""
    if dist.is_available() and dist.is_initialized():
        parts: list[list[tuple[int, Tensor, list[str]]] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, shown)
        shown = [item for part in parts for item in part or []]
    return sorted(shown, key=lambda item: item[0])

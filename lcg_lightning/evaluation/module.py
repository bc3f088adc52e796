"""The evaluation module: one method on one task, judged on images, as run by ``lcg test``."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback
from numpy.typing import NDArray
from torch import Tensor, nn

from lcg_lightning.data.datamodule import LatentBatch, LatentDataModule
from lcg_lightning.data.rows import SPLITS
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import Diverged, UserError
from lcg_lightning.evaluation.asking import Group, check_sources, groups, survey
from lcg_lightning.evaluation.costs import Costs
from lcg_lightning.evaluation.decoding import Decoding
from lcg_lightning.evaluation.estimates import Estimate
from lcg_lightning.evaluation.gallery import Gallery
from lcg_lightning.evaluation.judged import Judged, Judges
from lcg_lightning.evaluation.logs import log_figures, log_identity
from lcg_lightning.evaluation.metrics import METRICS
from lcg_lightning.evaluation.metrics.base import ImageMetric, Setting
from lcg_lightning.evaluation.networks import load_features, load_networks
from lcg_lightning.evaluation.output import Claim
from lcg_lightning.evaluation.provenance import collect_versions, git_commit
from lcg_lightning.evaluation.records import Record
from lcg_lightning.evaluation.reference import Reference, files_of
from lcg_lightning.evaluation.results import write_failure, write_results
from lcg_lightning.evaluation.tasks import Task, captions
from lcg_lightning.files import plain
from lcg_lightning.formats.descriptions import described, plain_spec
from lcg_lightning.generators.load import in_zoo, load_generator
from lcg_lightning.methods.base import Method, refuse_broken

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""The trainer's precisions that evaluations work in; images are decoded and judged in it, latents are float32."""


class Evaluation(LightningModule):
    """Measures a method on a task and writes what :func:`~lcg_lightning.evaluation.results.write_results` does.

    The task derives the conditions of sample i from row i of the split (modulo its length). The sample starts from
    noise that depends only on i and the seed, so figures do not depend on the batch size or the number of processes.
    Samples of a batch that ask for different trees are answered apart. Edits that ask for nothing new are made but not
    counted (:attr:`~lcg_lightning.evaluation.judged.Judged.met_before`); ``acc_joint/met_before`` is their share.

    The metrics are those of :data:`~lcg_lightning.evaluation.metrics.METRICS` that apply, and ``metrics``. Images are
    decoded from the method's latents. If the generator takes noise besides a latent, such as x_T, each sample has its
    own noise. If the source's image file is given and the generator can invert it, source and edits share the noise
    that reproduces the image.

    Args:
        task: the task.
        method: the method to evaluate.
        out: folder for the results; must be new or empty. Of a method that diverges, the record says so.
        n: number of samples; by default the number of rows in the split.
        seed: seed of the samples' noise.
        generator: zoo name, generator file, YAML file (path and options, or class_path and init_args), or the content
            of one.
        judge: attribute network: zoo name, YAML file, or its content (configs/judges, or class_path and init_args). The
            default is the zoo's for a zoo generator, and none otherwise; without one, accuracy is measured by the truth
            of a generator that knows it, such as the exact world, and not for any other.
        identity: identity network, likewise; without one, identity is not measured.
        features: features that FID compares, on tasks whose targets follow the data: those of the identity network
            (``identity``), Inception's (``inception``, downloaded at first use to torch.hub's folder, or the path of
            ``inception-2015-12-05.pt``), or ``none`` for no FID.
        split: split whose rows define what is asked: test, or val to choose settings by.
        reference: another split, that FID compares with.
        images: folder or LMDB of image files. FID then compares with the reference's image files instead of decoded
            latents, and a generator that can invert computes the noise of edits from the split's image files.
        resize: scale square image files to the generator's size instead of refusing them.
        truncation_psi: results and sources are moved towards the store's mean before decoding, mean + psi (w - mean);
            the reference is not.
        metrics: further metrics, each a class path with its arguments.
        label: name of the method in tables; by default the method's own name.
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
        features: str = "identity",
        split: Literal["test", "val"] = "test",
        reference: str = "val",
        images: Path | None = None,
        resize: bool = False,
        truncation_psi: float = 1.0,
        metrics: list[ImageMetric] | None = None,
        label: str | None = None,
    ) -> None:
        super().__init__()
        if in_zoo(generator):
            judge, identity = judge or generator, identity or generator
        self.generator = load_generator(generator)
        unjudged = judge is None and self.generator.truth is None
        if unjudged and not (task.matches_data or (task.edits and identity)) and not metrics:
            raise UserError(f"evaluation: without a judge nothing can be measured on the task {task.name}; name one")
        if n is not None and n < 2:
            raise UserError(f"evaluation: n is {n}; ask for two or more samples")
        if reference not in SPLITS:
            raise UserError(f"evaluation: reference is {reference}; give one of {', '.join(SPLITS)}")
        if not math.isfinite(truncation_psi):
            raise UserError(f"evaluation: truncation_psi is {truncation_psi}; give a number, 1 for none")
        self.arguments = plain(
            {
                "task": described(task),
                "method": described(method),
                "generator": plain_spec(generator),
                "judge": plain_spec(judge),
                "identity": plain_spec(identity),
                "features": features,
                "split": split,
                "reference": reference,
                "images": images,
                "resize": resize,
                "truncation_psi": truncation_psi,
                "metrics": [described(metric) for metric in metrics or []],
            }
        )
        self.task, self.method, self.n, self.seed = task, method, n, seed
        self.claim = Claim(Path(out))
        self.images, self.resize, self.truncation_psi = images, resize, truncation_psi
        self.split, self.reference_split, method.split = split, reference, split
        self.label = label or method.name
        self.command: list[str] | None = None  # the command line, where there is one
        self.networks = load_networks(judge, identity, self.generator.image_size)
        self.features = load_features(features, self.networks[1]) if task.matches_data else None
        self.candidates = [*(kind() for kind in METRICS), *(metrics or [])]

    def setup(self, stage: str) -> None:
        """Checks the pieces against each other, prepares the metrics, claims the folder, and prepares the method."""
        data = _data_of(self.trainer)
        self.batch_size, store = data.batch_size, data.store
        self.space, self.schema = store.space(self.generator), store.schema
        labels = store.split(self.split).labels
        self.rows = len(labels)
        self.total = self.rows if self.n is None else self.n
        if self.rows < self.trainer.world_size:
            raise UserError(
                f"{store.path}: {self.rows} {self.split} rows for {self.trainer.world_size} processes; use fewer"
            )
        self.steps, asked = survey(self.task, self.split, labels, self.schema)
        if self.task.matches_data and self.reference_split == self.split:
            raise UserError(f"evaluation: reference is {self.split}, but its rows are what is asked; give another")
        sources = None
        if self.images is not None and self.task.edits and not self.task.sampled and self.generator.can("invert"):
            sources = files_of(self.images, store, self.split, self.generator.image_size)
        self.judges = Judges(*self.networks, self.features, store, self.space)
        self.decoding = Decoding(self.space, self.judges, self.seed, self.truncation_psi, sources, self.resize)
        setting = Setting(
            self.schema,
            edits=self.task.edits,
            matches_data=self.task.matches_data,
            steps=self.steps,
            returns=self.task.returns,
            networks=self.judges.marks(),
            num_features=0 if self.features is None else self.features.num_features,
            has_reference=self.reference_split in store.sizes,
            store=store,
            space=self.space,
        )
        self.judged = "judge" in setting.networks
        check_sources(self.task, self.generator, self.judged)
        setting = self._measure_by(setting, store)
        self.claim.take_everywhere(self.trainer.strategy)
        self.method.prepare(store, self.space)
        self.method.to(self.device).eval().requires_grad_(False)
        marks = {"asked": asked, "generator": self.generator.fingerprint, "store": store.content_hash}
        self.record = self._empty_record(setting, marks)
        self.costs = Costs(self.method, self.steps if self.task.edits else None, self.device)
        self.gallery, self.summary = Gallery(), ""

    def _measure_by(self, setting: Setting, store: LatentStore) -> Setting:
        """Prepares the metrics that apply in a setting, and the reference if one needs it; returns it with this."""
        chosen = [metric for metric in self.candidates if metric.applies(setting)]
        if not chosen:
            raise UserError(f"evaluation: nothing can be measured on the task {self.task.name}; name a judge")
        self.reference = None
        if any(metric.uses_reference for metric in chosen):
            self.reference = Reference(store, self.space, self.reference_split, self.images, self.resize, self.seed)
            setting = replace(setting, reference=str(self.reference))
        for metric in chosen:
            metric.prepare(setting)
        self.metrics = nn.ModuleList(chosen)
        return setting

    def _empty_record(self, setting: Setting, marks: dict[str, str]) -> Record:
        """The record of a prepared method before anything is measured; ``marks`` are further fingerprints."""
        return Record(
            task=self.task.name,
            method=self.label,
            config=self.arguments,
            fingerprints={
                **self.method.fingerprints,
                **{key: mark.rsplit(" @", 1)[1] for key, mark in setting.networks.items()},
                **marks,
            },
            reference=setting.reference or None,
            n=self.total,
            seed=self.seed,
            sampler=self.method.edit_sampler if self.task.edits else self.method.sampler,
            nfe=0.0,
            seconds=0.0,
            memory={},
            command=self.command,
            ranked=self.method.ranked,
            failure=None,
            versions=collect_versions(self.device, self.trainer.precision),
            commit=git_commit(),
            columns=[column for metric in self._each() for column in metric.columns],
            metrics={},
        )

    def configure_callbacks(self) -> list[Callback]:
        """If the run fails, releases the folder; if the method diverged, a record there says so."""

        def end(trainer: Trainer, module: LightningModule, error: BaseException) -> None:
            if isinstance(error, Diverged):
                write_failure(self.claim, replace(self.record, **self.costs.own(), failure=str(error)))
            self.claim.release()

        return [LambdaCallback(on_exception=end)]

    def _each(self) -> Iterator[ImageMetric]:
        for metric in self.metrics:
            assert isinstance(metric, ImageMetric)
            yield metric

    def on_test_start(self) -> None:
        """Moves the objects made by :meth:`setup` to the device, and logs the run's identity."""
        self.to(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        if self.trainer.is_global_zero:
            log_identity(self.loggers, self.record)
            if self.task.matches_data and self.features is None:
                print("note: features: none, so no FID is measured")

    def on_test_epoch_start(self) -> None:
        """Gives this process's share of the reference to the metrics that use it."""
        if self.reference is None:
            return
        place = (self.trainer.world_size, self.trainer.global_rank, self.device)
        for pictures, index in self.reference.batches(self.judges, self.batch_size, *place):
            for metric in self._each():
                if metric.uses_reference:
                    metric.update_reference(pictures, index)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Generates or edits, decodes and judges the samples of a batch of rows."""
        for start in range(0, self.total, self.rows):
            index = batch["index"] + start
            keep = index < self.total
            if keep.any():
                index, rows, labels = index[keep], batch["latents"][keep], batch["labels"][keep]
                if self.task.sampled:
                    rows = self.space.standardize(self.generator.latents_of(self.seed, index).to(rows))
                    labels = self.schema.predict(self.decoding.of(rows, index)(rows).outputs)
                for group in groups(self.task, labels, index, self.schema):
                    self._judge(rows[group.places], index[group.places], group)

    def _judge(self, rows: Tensor, index: Tensor, group: Group) -> None:
        noise = None if self.task.edits else SampleNoise(self.seed, index, self.space.dim, rows.device)
        with self.costs.of(len(rows)), torch.autocast(rows.device.type, enabled=False):
            latents = group.answers(self.method, rows, noise)
        refuse_broken(latents, index, self.label)
        pictures = self.decoding.of(rows, index)
        source, before = pictures(rows, shared=True) if self.task.edits else None, None
        if source is not None and self.judged:
            before = group.met(self.schema.predict(source.outputs), self.schema)
        steps = [pictures(z) for z in latents]
        judged = Judged(index, group.wanted, group.named(self.schema), steps, source, before)
        for metric in self._each():
            metric.update(judged)
        words = [captions(step.asked, self.schema, len(rows)) for step in group.steps]
        if source is not None:
            steps, words = [source, *steps], [["source"] * len(rows), *words]
        self.gallery.add(index, steps, list(map(list, zip(*words, strict=True))))

    def on_test_epoch_end(self) -> None:
        """Computes the metrics on every process; the first writes the results together."""
        found: dict[str, Estimate] = {}
        samples: dict[str, NDArray[np.float64]] = {}
        for metric in self._each():
            found |= metric.compute()
            samples |= metric.per_sample()
        for name, estimate in found.items():
            self.log(name, estimate.value, rank_zero_only=True)
        costs, shown = self.costs.pooled(self.trainer.strategy), self.gallery.gathered()
        if not self.trainer.is_global_zero:
            return
        self.record = replace(self.record, **costs, metrics=found)
        write_results(self.claim, self.record, samples, shown, edits=self.task.edits)
        log_figures(self.loggers, found, self.claim.path / "samples.png")
        self.summary = f"{self.record.summary()}; record: {self.claim.path / 'record.json'}"

    def teardown(self, stage: str) -> None:
        """Prints the figures and the record's path in one line."""
        if self.trainer.is_global_zero and self.summary:
            print(self.summary)


def _data_of(trainer: Trainer) -> LatentDataModule:
    """The data of a trainer that evaluates all of the samples, in a precision that evaluations work in."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, LatentDataModule):
        raise UserError("evaluation: data must be a LatentDataModule; set data.class_path")
    limit = trainer.limit_test_batches
    if isinstance(limit, int) or limit < 1:  # 1 is one batch, 1.0 all of them
        raise UserError(f"evaluation: limit_test_batches is {limit}, which leaves samples out; set n instead")
    if trainer.precision not in PRECISIONS:  # the others convert networks, but not latents
        raise UserError(f"evaluation: trainer.precision is {trainer.precision}; use one of {', '.join(PRECISIONS)}")
    return data

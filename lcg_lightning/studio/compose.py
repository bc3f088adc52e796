"""The Compose page's work, without browsers: checks a typed condition, samples it, and reads the samples."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema, quoted
from lcg_lightning.conditions import Condition, names, parse, to_text
from lcg_lightning.conditions.language import ConditionError
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import figures
from lcg_lightning.evaluation.reading import find_reader
from lcg_lightning.evaluation.run_report import SAMPLES_SHOWN, Readings, draw_samples
from lcg_lightning.methods.base import Method, refuse_broken, strength
from lcg_lightning.studio.methods import PLAIN, remade, takes
from lcg_lightning.studio.pictures import Pixels, pixels
from lcg_lightning.studio.report import readings, said, shown
from lcg_lightning.studio.resources import Resources
from lcg_lightning.studio.words import Asked

MOST_CHARACTERS = 2000
MOST_SAMPLES = 64
BATCH = 8
"""Samples made at a time: a visitor sees the first ones soon, and others' work comes in between."""


def check(text: str, schema: AttributeSchema) -> Condition:
    """Reads a visitor's condition.

    Raises:
        ConditionError: a text that is not a condition, or that nothing satisfies.
        UserError: no text, or too long a one.
    """
    if not text.strip():
        raise UserError(f"Type a condition, such as {examples(schema)[0]}.")
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"The condition has {len(text):,} characters; this page takes at most {MOST_CHARACTERS:,}.")
    return parse(text, schema)


def examples(schema: AttributeSchema) -> list[str]:
    """Conditions on a schema's attributes that show the language, at least one."""
    switches = [quoted(attribute.name) for attribute in schema if attribute.kind == "binary"]
    values = [f"{quoted(a.name)}={a.low + 0.75 * (a.high - a.low):.2g}" for a in schema if a.kind == "continuous"]
    values += [f"{quoted(a.name)}={quoted(a.classes[0])}" for a in schema if a.kind == "categorical"]
    first, second, third = (switches + values + ["", ""])[:3]
    tried = [
        f"{first} & ~{second} & {values[0] if values else third}",
        f"({first} | {second}) & ~{third}",
        f"2*{first} & {' & '.join(values)}",
        first,
    ]
    found = []
    for text in tried:
        try:
            parse(text, schema)
        except ConditionError:  # too few attributes, or of other kinds
            continue
        found.append(text)
    return found


def titles(resources: Resources) -> list[str]:
    """The methods that can sample; the plain sequential form of LCG differs in edits alone."""
    return [title for title, method in resources.methods.items() if title != PLAIN and _samples(method, resources)]


def _samples(method: Method, resources: Resources) -> bool:
    priors = method.config.get("prior"), resources.main.config.get("prior")
    return type(method).generate is not Method.generate and (any(priors) or not takes(method, "prior"))


def composer(resources: Resources, name: str, scale: float | None = None) -> Method:
    """A method with what it needs to sample, not prepared yet.

    Args:
        resources: holds the methods.
        name: one of :func:`titles`.
        scale: how strongly the condition guides, if the method takes a scale; None for the method's own.

    Raises:
        UserError: the method refuses the scale.
    """
    method = resources.methods[name]
    changes: dict[str, Any] = {}
    if takes(method, "prior") and method.config["prior"] is None:
        changes["prior"] = resources.main.config.get("prior")
    if scale not in (None, own := strength(method, edits=False)) and own is not None:
        changes["scale"] = scale
    return remade(method, **changes)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture of a condition."""

    picture: Pixels
    """As the page shows it, at most 256 pixels high and wide."""
    latents: Tensor
    """(*latent_shape)."""
    chance: float | None
    """Probability of the condition; None where nothing reads it."""
    read: str
    """The attributes that the condition names, as they are read, in words."""


class Sampling:
    """Samples of one condition by one method.

    Args:
        resources: what all visitors share.
        method: makes them.
        asked: what for, and how many.

    Raises:
        UserError: a condition that :func:`check` refuses, or a number of samples out of range.
    """

    def __init__(self, resources: Resources, method: Method, asked: Asked) -> None:
        if not 1 <= asked.n <= MOST_SAMPLES:
            raise UserError(f"Ask for 1 to {MOST_SAMPLES} samples, not {asked.n}.")
        self.condition = check(asked.condition, resources.schema)
        self.asked = asked._replace(condition=to_text(self.condition, resources.schema))
        self.resources, self.method = resources, method
        self.samples: list[Sample] = []

    def batches(self) -> Iterator[list[Sample]]:
        """All samples so far, after each batch.

        Raises:
            UserError: a condition that the method cannot answer, or a result that is not finite.
        """
        do = self.resources.worker.do
        do(self._begin)
        for index in torch.split(torch.arange(self.asked.n), self.asked.batch_size):
            self.samples += do(self._batch, index)
            yield self.samples

    def picture(self) -> bytes:
        """The picture that ``lcg sample`` writes, a PNG file."""
        return self.resources.worker.do(self._picture)

    @property
    def reader(self) -> str:
        """What reads the samples, in words; empty where nothing does."""
        return "" if self._readings.reader is None else self._readings.reader.name

    def _begin(self) -> None:
        resources, method = self.resources, self.resources.prepared(self.method)
        reader = find_reader(resources.generator_spec, resources.store, resources.space, method, resources.device)
        self._readings = Readings(reader, self.condition)
        self._shown: list[Tensor] = []

    def _batch(self, index: Tensor) -> list[Sample]:
        resources, space, schema, seed = self.resources, self.resources.space, self.resources.schema, self.asked.seed
        z = self.method.generate(self.condition, SampleNoise(seed, index, space.dim, resources.device))
        refuse_broken([z], index, self.method.name)
        latents, images = space.unstandardize(z).cpu(), space.decode_samples(z, seed, index)
        self._readings.add(z, images)
        self._shown.append(figures.shrink(images.cpu()[: max(0, SAMPLES_SHOWN - int(index[0]))]))
        chances, words = [None] * len(index), [""] * len(index)
        if (reader := self._readings.reader) is not None:
            chances = self._readings.figures["probability"][-len(index) :]
            words = [_named(row, self.condition, schema) for row in torch.split(reader.outputs(z, images).cpu(), 1)]
        pictures = map(pixels, torch.split(figures.shrink(images.cpu()), 1))
        return [Sample(*each) for each in zip(pictures, latents, chances, words, strict=True)]

    def _picture(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix="lcg-") as folder:
            path = Path(folder, "grid.png")
            images, store = torch.cat(self._shown), self.resources.store
            draw_samples(images, self.asked.condition, self.asked.seed, self.method, self._readings, store, path)
            return path.read_bytes()


def _named(outputs: Tensor, condition: Condition, schema: AttributeSchema) -> str:
    """What classifier outputs (1, K) say of the attributes that a condition names."""
    read = dict(zip(schema.names, readings(outputs, schema).tolist(), strict=True))
    found = [schema[name] for name in names(condition)]
    return ", ".join(f"{shown(attribute.name)} {said(attribute, read[attribute.name])}" for attribute in found)

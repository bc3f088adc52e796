"""What ``lcg sample`` and ``lcg edit`` say of their results: words on the picture, and report.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lcg_lightning.conditions import Condition, names, to_text
from lcg_lightning.data.store import LatentStore
from lcg_lightning.evaluation import figures
from lcg_lightning.evaluation.reading import Reader
from lcg_lightning.formats.descriptions import described
from lcg_lightning.methods.base import Method, strength

SAMPLES_SHOWN = 32
"""Most samples in a picture."""


class Readings:
    """What is read off the results of one condition, batch by batch; nothing without a reader."""

    def __init__(self, reader: Reader | None, condition: Condition) -> None:
        self.reader, self.condition = reader, condition
        self.figures: dict[str, list[Any]] = {}
        """Of each result, ``probability`` of the condition, whether it is ``met``, and ``identity``, if read."""

    def add(self, z: Tensor, images: Tensor, sources: Tensor | None = None) -> None:
        """Reads standardized latents (B, D) and images (B, 3, S, S) in [-1, 1].

        Args:
            z: the latents.
            images: what they decode to.
            sources: the images that were edited, for their identity.
        """
        if self.reader is None:
            return
        found = dict(zip(("probability", "met"), self.reader.read(self.condition, z, images), strict=True))
        if sources is not None and self.reader.identity is not None:
            found["identity"] = self.reader.likeness(images, sources)
        for name, values in found.items():
            rounded = values if name == "met" else values.double().round(decimals=6)
            self.figures.setdefault(name, []).extend(rounded.tolist())

    def notes(self, count: int) -> list[str]:
        """Short texts of the first results, such as "p 0.97 · id 0.93"; none without a reader."""
        shown = {"p": self.figures.get("probability"), "id": self.figures.get("identity")}
        columns = [[f"{sign} {x:.2f}" for x in values[:count]] for sign, values in shown.items() if values]
        return [" · ".join(each) for each in zip(*columns, strict=True)]

    def summary(self) -> list[str]:
        """How many results meet the condition, and their mean identity, in words."""
        met, identity = self.figures.get("met"), self.figures.get("identity")
        words = [] if met is None else [f"{sum(met)} of {len(met)} meet what is asked"]
        return words if identity is None else [*words, f"mean identity {sum(identity) / len(identity):.2f}"]

    def to_json(self) -> dict[str, Any]:
        """The means of all figures, and the figures."""
        means = {f"mean_{name}": sum(values) / len(values) for name, values in self.figures.items()}
        return means | self.figures


def title(
    asked: str, method: Method, settings: Sequence[str], last: Readings, store: LatentStore, edits: bool = False
) -> list[str]:
    """Paragraphs above a picture, for a reader who knows nothing of the run.

    Args:
        asked: the condition, or all of them.
        method: the method.
        settings: what else decided the results, in words.
        last: readings of what was asked last.
        store: the store of the latents.
        edits: whether sources were edited.
    """
    scale, reader = strength(method, edits), last.reader
    run = [method.name, *([] if scale is None else [f"scale {scale:g}"]), *settings, *last.summary()]
    meaning = []
    if reader is not None:
        what = "all that is asked so far" if edits else "the condition"
        numbers = any(reader.schema[name].kind == "continuous" for name in names(last.condition))
        within = ", numbers within a tenth of their range" if numbers else ""
        meaning.append(f"p: probability of {what}{within}, read by {reader.name}")
    if "identity" in last.figures and reader is not None and reader.identity is not None:
        meaning.append(f"id: cosine to the source's identity, by {reader.identity.name}")
    return [asked, " · ".join(run), "; ".join([*meaning, f"store {store.path}, {store.content_hash}"])]


def draw_samples(
    images: Tensor, asked: str, seed: int, method: Method, readings: Readings, store: LatentStore, path: Path
) -> None:
    """Draw the first samples of a condition, with what was asked above and what is read below.

    Args:
        images: the first of the samples, (N, 3, S, S) in [-1, 1].
        asked: the condition.
        seed: seed of the noise.
        method: the method.
        readings: of all samples.
        store: the store of the latents.
        path: the PNG file.
    """
    above = title(asked, method, [f"seed {seed}"], readings, store)
    figures.grid(images, [""] * len(images), 8, path, readings.notes(len(images)), above)


def write_report(
    part: Path, method: Method, store: LatentStore, steps: Sequence[Readings], edits: bool = False, **settings: Any
) -> None:
    """Write report.json: the method with its arguments, the settings, and the figures of each step.

    Args:
        part: folder to write into.
        method: the method.
        store: the store of the latents.
        steps: readings of what should be met after each step; one for generation.
        edits: whether sources were edited.
        settings: what else decided the results, as plain values.
    """
    reader = steps[0].reader
    report = {
        **settings,
        "method": method.name,
        "scale": strength(method, edits),
        **described(method),
        "store": str(store.path),
        "store_content": store.content_hash,
        "generator": store.fingerprint,
        "read_by": reader and reader.name,
        "steps": [{"condition": to_text(s.condition, store.schema), **s.to_json()} for s in steps],
    }
    text = json.dumps(report, indent=1, ensure_ascii=False, default=str)
    (part / "report.json").write_text(text + "\n", encoding="utf-8")

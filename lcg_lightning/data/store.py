"""The latent store: a folder of latents, labels and ids that remembers which generator made it."""

import hashlib
import json
import math
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator

SPLITS = ("train", "val", "test")
_FORMAT = 1
_CHUNK = 8192  # rows per step of the float64 sums: bounds their memory


class Split(NamedTuple):
    """Rows of a store. ``latents`` (N, *shape) float32, ``labels`` (N, A) float32, ``ids`` N names."""

    latents: Tensor
    labels: Tensor
    ids: list[str]


def hash_splits(ids: Sequence[str], fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> list[str]:
    """The split of each id, a function of the id alone: adding images moves no other image.

    Args:
        ids: names of the images.
        fractions: expected shares of train, val and test; they sum to 1.

    >>> hash_splits(["0", "1", "2"]) == [hash_splits([i])[0] for i in "012"]
    True
    """
    if min(fractions) < 0 or not math.isclose(sum(fractions), 1.0):
        raise UserError(f"split fractions {fractions} must be at least 0 and sum to 1")
    splits = []
    for name in ids:
        u = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        splits.append("train" if u < fractions[0] else "val" if u < fractions[0] + fractions[1] else "test")
    return splits


def check_labels(labels: Tensor, schema: AttributeSchema, ids: Sequence[str]) -> None:
    """Check that labels (N, A) are of the values their attributes can take; NaN (unknown) always is.

    Raises:
        UserError: wrong shape, or a value out of range; the message names the attribute and the image.
    """
    if labels.shape != (len(ids), len(schema)):
        raise UserError(f"labels have shape {tuple(labels.shape)}, expected ({len(ids)}, {len(schema)})")
    for attribute, values in zip(schema, labels.unbind(1), strict=True):
        low, high, allowed = attribute.low, attribute.high, "a number"
        if attribute.kind != "continuous":
            low, high, allowed = (
                0.0,
                len(attribute.classes) - 1.0 if attribute.classes else 1.0,
                "a whole number",
            )
        bad = (values < low) | (values > high)
        if attribute.kind != "continuous":
            bad |= values.isfinite() & (values != values.round())
        if bad.any():
            row = int(bad.nonzero()[0])
            raise UserError(
                f"{attribute.name} of {ids[row]} is {float(values[row]):g}, not {allowed} in "
                f"[{low:g}, {high:g}] ({int(bad.sum())} such rows); correct the labels or the range"
            )


def check_finite(latents: Tensor, ids: Sequence[str]) -> None:
    """Raise a UserError that names the first id whose latent (N, *shape) holds a NaN or an infinity."""
    bad = ~latents.flatten(1).isfinite().all(1)
    if bad.any():
        raise UserError(
            f"the latent of {ids[int(bad.nonzero()[0])]} is not finite ({int(bad.sum())} such rows); "
            "check that image and the generator's weights"
        )


def train_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the rows of latents (N, *shape), each (*shape) in float64.

    A dimension that does not vary beyond float32's rounding gets a deviation of 1, so standardization makes it 0.
    """
    chunks, n = torch.split(latents, _CHUNK), len(latents)
    mean = torch.stack([c.double().sum(0) for c in chunks]).sum(0) / n
    std = (torch.stack([(c.double() - mean).square().sum(0) for c in chunks]).sum(0) / n).sqrt()
    return mean, torch.where(std > torch.finfo(torch.float32).eps * mean.abs(), std, 1.0)


def _warn_of_constants(labels: Tensor, schema: AttributeSchema) -> None:
    for name, values in zip(schema.names, labels.unbind(1), strict=True):
        found = torch.unique(values[~values.isnan()])
        if len(found) < 2:
            what = f"always {float(found[0]):g}" if len(found) else "never known"
            warnings.warn(f"{name} is {what} in the train split; nothing can be learnt about it", stacklevel=3)


def refuse_occupied(path: Path) -> None:
    """Raise a UserError if something is already written where a store is to go."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is there and not empty; name another output folder or remove it")


def write_store(
    path: str | Path,
    splits: Mapping[str, Split],
    schema: AttributeSchema,
    fingerprint: str,
    source: Mapping[str, Any],
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Path:
    """Write a store. It appears under its name only when complete.

    Args:
        path: folder to make.
        splits: rows of "train" (not empty) and, if there are any, of "val" and "test".
        schema: what the label columns are.
        fingerprint: of the generator whose latents these are.
        source: where the rows come from, in plain JSON values, for the record.
        statistics: mean and standard deviation (*shape) to standardize with; by default those of the train rows.

    Warns of attributes that have one value, or none, in all train rows.

    Raises:
        UserError: the folder is there and not empty; latents that are not finite or differ in shape; labels
            their attributes cannot take; an id given twice.
    """
    path = Path(path)
    refuse_occupied(path)
    splits = {name: split for name, split in splits.items() if split.ids}
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise UserError(f"a store needs rows in train, and only {', '.join(SPLITS)}; got {', '.join(splits) or 'none'}")
    shape = splits["train"].latents.shape[1:]
    twice = [i for i, count in Counter(i for split in splits.values() for i in split.ids).items() if count > 1]
    if twice:
        raise UserError(f"id {twice[0]} stands in the store twice ({len(twice)} such ids); ids must be unique")
    for name, (latents, labels, ids) in splits.items():
        if latents.shape != (len(ids), *shape):
            raise UserError(f"{name} latents have shape {tuple(latents.shape)}, expected {(len(ids), *shape)}")
        check_finite(latents, ids)
        check_labels(labels, schema, ids)
    mean, std = train_statistics(splits["train"].latents) if statistics is None else statistics
    if mean.shape != shape or std.shape != shape:
        raise UserError(f"statistics have shape {tuple(mean.shape)}, but the latents have {tuple(shape)}")
    _warn_of_constants(splits["train"].labels, schema)
    about = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "latent_shape": list(shape),
        "schema": schema.to_json(),
        "sizes": {name: len(split.ids) for name, split in splits.items()},
        "source": dict(source),
        "mean": mean.flatten().tolist(),
        "std": std.flatten().tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        temporary.mkdir()
        for name, (latents, labels, ids) in splits.items():
            tensors = {"latents": latents.float().contiguous(), "labels": labels.float().contiguous()}
            save_file(tensors, temporary / f"{name}.safetensors", metadata={"ids": json.dumps(ids)})
        (temporary / "store.json").write_text(json.dumps(about, allow_nan=False), encoding="utf-8")
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


@dataclass(frozen=True, eq=False)
class LatentStore:
    """An opened store. Splits are mapped into memory when asked for, so opening is cheap and it pickles."""

    path: Path
    schema: AttributeSchema
    fingerprint: str
    """Of the generator that made the latents."""
    latent_shape: tuple[int, ...]
    mean: Tensor
    """Of the train split, per dimension, (*latent_shape) float64."""
    std: Tensor
    """Of the train split, per dimension, (*latent_shape) float64, above 0."""
    sizes: dict[str, int]
    """Rows in each split the store has."""
    source: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, generator: Generator | None = None) -> Self:
        """Open a store and check it.

        Args:
            path: its folder.
            generator: the one that will decode; the latents must be its own.

        Raises:
            UserError: not a store, a damaged one, or one of another generator or of another of its latent spaces.
        """
        path = Path(path)
        try:
            about = json.loads((path / "store.json").read_text(encoding="utf-8"))
        except OSError:
            raise UserError(f"{path} is not a latent store (no store.json); make one with `lcg encode`") from None
        except ValueError:
            raise UserError(f"{path}/store.json is damaged; make the store again") from None
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise UserError(f"{path} is not a store of format {_FORMAT}; make it again with this version")
        try:
            shape = tuple(about["latent_shape"])
            store = cls(
                path=path,
                schema=AttributeSchema.from_json(about["schema"]),
                fingerprint=about["fingerprint"],
                latent_shape=shape,
                mean=torch.tensor(about["mean"], dtype=torch.float64).view(shape),
                std=torch.tensor(about["std"], dtype=torch.float64).view(shape),
                sizes=dict(about["sizes"]),
                source=about["source"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}/store.json is damaged ({reason}); make the store again") from None
        if not (store.mean.isfinite().all() and store.std.isfinite().all() and (store.std > 0).all()):
            raise UserError(f"{path}: mean or std is not finite and positive; make the store again")
        if generator is not None:
            store.check(generator)
        for name in store.sizes:
            store.split(name)
        return store

    def check(self, generator: Generator) -> None:
        """Checks that the latents are a generator's own.

        Raises:
            UserError: they are another generator's, or of another shape, such as W where W+ is declared.
        """
        if generator.fingerprint != self.fingerprint:
            raise UserError(
                f"{self.path} holds latents of another generator ({self.fingerprint}, not {generator.fingerprint}); "
                "name that generator, or encode the images again with this one"
            )
        if generator.latent_shape != self.latent_shape:
            raise UserError(
                f"{self.path} holds latents of shape {self.latent_shape}, but the generator takes "
                f"{generator.latent_shape}; load the generator with the space that the store was made in"
            )

    def split(self, name: str) -> Split:
        """The rows of "train", "val" or "test", mapped into memory, so that rows are read when they are used.

        Raises:
            UserError: the store has no such split, or its file is damaged.
        """
        if name not in self.sizes:
            raise UserError(f"{self.path} has no {name} split (it has {', '.join(self.sizes)})")
        file = self.path / f"{name}.safetensors"
        try:
            with safe_open(file, "pt") as tensors:
                latents, labels = tensors.get_tensor("latents"), tensors.get_tensor("labels")
                ids = json.loads(tensors.metadata()["ids"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} is damaged ({' '.join(str(error).split())}); make the store again") from None
        found = (len(ids), tuple(latents.shape), tuple(labels.shape), latents.dtype, labels.dtype)
        n = self.sizes[name]
        if found != (n, (n, *self.latent_shape), (n, len(self.schema)), torch.float32, torch.float32):
            raise UserError(f"{file} does not hold what store.json says (found {found}); make the store again")
        return Split(latents, labels, ids)

    def space(self, generator: Generator) -> LatentSpace:
        """The latent space of the store, in which its rows are standardized.

        Raises:
            UserError: the latents are another generator's, see :meth:`check`.
        """
        self.check(generator)
        return LatentSpace(generator, self.mean, self.std)

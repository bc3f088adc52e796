"""The latent store: a folder of latents, labels and ids that records which generator made it."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.rows import SPLITS, check_finite, check_labels, train_statistics
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.errors import UserError
from lcg_lightning.files import atomic, atomic_folder, load_json, refuse_occupied, sha256
from lcg_lightning.generators.base import Generator
from lcg_lightning.kept import keeps, once

_FORMAT = 2
"""Format 2 added checksums; format 1 can still be read."""


class Split(NamedTuple):
    """Rows of a store. ``latents`` (N, *shape) float32, ``labels`` (N, A) float32, ``ids`` N names."""

    latents: Tensor
    labels: Tensor
    ids: Sequence[str]


class _Ids(Sequence[str]):
    """The rows' names, parsed from JSON when one is asked for: a million would take 70 MB, and few need them.

    Raises:
        UserError: when one is asked for, if the file does not name each of its rows.
    """

    def __init__(self, file: Path, text: str, length: int) -> None:
        self.file, self.text, self.length = file, text, length

    @cached_property
    def names(self) -> list[str]:
        try:
            found = json.loads(self.text)
        except ValueError:
            found = None
        if not isinstance(found, list) or len(found) != self.length:
            raise UserError(f"{self.file} is damaged (it does not name its {self.length} rows); make the store again")
        return found

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self.names[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


def _warn_of_constants(labels: Tensor, schema: AttributeSchema) -> None:
    for name, values in zip(schema.names, labels.unbind(1), strict=True):
        found = torch.unique(values[~values.isnan()])
        if len(found) < 2:
            what = f"always {float(found[0]):g}" if len(found) else "never known"
            warnings.warn(f"{name} is {what} in the train split; nothing can be learnt about it", stacklevel=3)


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
        splits: rows of "train" (not empty) and, optionally, of "val" and "test".
        schema: attributes of the label columns.
        fingerprint: fingerprint of the generator that the latents belong to.
        source: origin of the rows, as plain JSON values, for the record.
        statistics: mean and standard deviation (*shape) to standardize with; by default those of the train rows.

    Warns of attributes that have one value, or none, in all train rows.

    Raises:
        UserError: the folder exists and is not empty; latents are not finite or differ in shape; a label is not a
            valid value of its attribute; or an id occurs twice.
    """
    path = Path(path)
    refuse_occupied(path)
    splits = {name: split for name, split in splits.items() if split.ids}
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise UserError(f"a store needs rows in train, and only {', '.join(SPLITS)}; got {', '.join(splits) or 'none'}")
    shape = splits["train"].latents.shape[1:]
    twice = [i for i, count in Counter(i for split in splits.values() for i in split.ids).items() if count > 1]
    if twice:
        raise UserError(f"id {twice[0]} occurs in the store twice ({len(twice)} such ids); ids must be unique")
    for name, (latents, labels, ids) in splits.items():
        if latents.shape != (len(ids), *shape):
            raise UserError(f"{name} latents have shape {tuple(latents.shape)}, expected {(len(ids), *shape)}")
        check_finite(latents, ids)
        check_labels(labels, schema, ids)
    mean, std = train_statistics(splits["train"].latents) if statistics is None else statistics
    if mean.shape != shape or std.shape != shape:
        raise UserError(f"statistics have shape {tuple(mean.shape)}, but the latents have {tuple(shape)}")
    _warn_of_constants(splits["train"].labels, schema)
    about: dict[str, Any] = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "latent_shape": list(shape),
        "schema": schema.to_json(),
        "sizes": {name: len(split.ids) for name, split in splits.items()},
        "source": dict(source),
        "mean": mean.flatten().tolist(),
        "std": std.flatten().tolist(),
        "sha256": {},
    }
    with atomic_folder(path) as folder:
        for name, (latents, labels, ids) in splits.items():
            tensors = {"latents": latents.float().contiguous(), "labels": labels.float().contiguous()}
            with atomic(folder / f"{name}.safetensors") as file:
                save_file(tensors, file, metadata={"ids": json.dumps(list(ids))})
                about["sha256"][name] = sha256(file)
        about["content"] = _content_hash(about)
        with atomic(folder / "store.json") as file:
            file.write_text(json.dumps(about, allow_nan=False), encoding="utf-8")
    return path


def _sha256(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise UserError(f"{file} is damaged ({error.strerror}); make the store again") from None


def _content_hash(about: Mapping[str, Any]) -> str:
    """Hash of everything in store.json except the origin of the rows."""
    keys = ("fingerprint", "latent_shape", "schema", "sizes", "mean", "std", "sha256")
    return hashlib.sha256(json.dumps({key: about[key] for key in keys}).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class LatentStore:
    """An open store. Splits are memory-mapped on access, so the object is small and can be pickled."""

    path: Path
    schema: AttributeSchema
    fingerprint: str
    """Fingerprint of the generator that made the latents."""
    latent_shape: tuple[int, ...]
    mean: Tensor
    """Mean that standardizes latents, per dimension, (*latent_shape) float64."""
    std: Tensor
    """Standard deviation that standardizes latents, per dimension, (*latent_shape) float64, above 0."""
    sizes: dict[str, int]
    """Number of rows in each split of the store."""
    source: dict[str, Any]
    content_hash: str
    """Hash of the rows, the schema, the statistics and the generator's fingerprint, 16 hex digits. The folder's name
    and the origin of the rows do not affect it."""

    @classmethod
    @keeps
    def open(cls, path: str | Path, generator: Generator | None = None) -> Self:
        """Open a store and check its whole content, which takes about 0.1 s for 100 MB.

        Args:
            path: its folder.
            generator: the generator that will decode; the latents must belong to it.

        Raises:
            UserError: the folder is not a store; the store is damaged (a wrong checksum or invalid rows); or it belongs
                to another generator or another of its latent spaces.
        """
        path = Path(path)
        if not (path / "store.json").exists():
            raise UserError(f"{path} is not a latent store (no store.json); make one with `lcg encode`")
        try:
            about = load_json(path / "store.json")
        except UserError as error:
            raise UserError(f"{path}/store.json is damaged ({error}); make the store again") from None
        if not isinstance(about, dict) or about.get("format") not in (1, _FORMAT):
            raise UserError(f"{path} is not a store of format 1 or {_FORMAT}; make it again with this version")
        try:
            schema = AttributeSchema.from_json(about["schema"])
            shape = tuple(about["latent_shape"])
            sums = {name: _sha256(path / f"{name}.safetensors") for name in about["sizes"]}
            written = sums if about["format"] == 1 else dict(about["sha256"])
            store = cls(
                path=path,
                schema=schema,
                fingerprint=about["fingerprint"],
                latent_shape=shape,
                mean=torch.tensor(about["mean"], dtype=torch.float64).view(shape),
                std=torch.tensor(about["std"], dtype=torch.float64).view(shape),
                sizes=dict(about["sizes"]),
                source=about["source"],
                content_hash=_content_hash(about | {"sha256": sums}),
            )
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise UserError(f"{path}/store.json is damaged ({reason}); make the store again") from None
        if not (store.mean.isfinite().all() and store.std.isfinite().all() and (store.std > 0).all()):
            raise UserError(f"{path}: mean or std is not finite and positive; make the store again")
        if generator is not None:
            store.check(generator)
        for name in store.sizes:
            store._check_rows(name)
            if written.get(name) != sums[name]:
                raise UserError(f"{path / name}.safetensors is not the file that was written; make the store again")
        if about["format"] > 1 and about.get("content") != store.content_hash:
            raise UserError(f"{path}/store.json is not as it was written; make the store again")
        return store

    def _check_rows(self, name: str) -> None:
        latents, labels, ids = self.split(name)
        try:
            check_finite(latents, ids)
            check_labels(labels, self.schema, ids)
        except UserError as error:
            raise UserError(f"{self.path / name}.safetensors: {error}") from None

    def check(self, generator: Generator) -> None:
        """Checks that the latents belong to a generator.

        Raises:
            UserError: they belong to another generator or have another shape, such as W instead of W+.
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
        """The memory-mapped rows of "train", "val" or "test".

        Raises:
            UserError: the store has no such split, or its file is damaged.
        """
        if name not in self.sizes:
            raise UserError(f"{self.path} has no {name} split (it has {', '.join(self.sizes)})")
        return once(["split", name, self.path, self.content_hash], lambda: self._read(name))

    def _read(self, name: str) -> Split:
        file = self.path / f"{name}.safetensors"
        try:
            with safe_open(file, "pt") as tensors:
                latents, labels = tensors.get_tensor("latents"), tensors.get_tensor("labels")
                ids = _Ids(file, tensors.metadata()["ids"], len(labels))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} is damaged ({' '.join(str(error).split())}); make the store again") from None
        found = (tuple(latents.shape), tuple(labels.shape), latents.dtype, labels.dtype)
        n = self.sizes[name]
        if found != ((n, *self.latent_shape), (n, len(self.schema)), torch.float32, torch.float32):
            raise UserError(f"{file} does not hold what store.json says (found {found}); make the store again")
        return Split(latents, labels, ids)

    def space(self, generator: Generator) -> LatentSpace:
        """The latent space in which the store's rows are standardized.

        Raises:
            UserError: the latents belong to another generator; see :meth:`check`.
        """
        self.check(generator)
        return LatentSpace(generator, self.mean, self.std)

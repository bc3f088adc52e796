"""Image folders with a table of labels: a CSV file, a JSON file, or one JSON file per image."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.annotated import AnnotatedImages, ImageData
from lcg_lightning.data.images import find_images, image_id, match_rows
from lcg_lightning.data.sources.annotations import read_splits, refuse_alike, refuse_missing
from lcg_lightning.errors import UserError
from lcg_lightning.files import load_json, read_text


@dataclass(frozen=True)
class Column(Attribute):
    """An attribute, and how a table gives its label."""

    column: str | None = None
    """Name in a CSV file's header, or names in a JSON record joined by dots; by default the attribute's name."""
    values: dict[str, float] | None = None
    """Labels for words, such as {female: 0, male: 1}. Class names need no entry."""

    @property
    def path(self) -> str:
        """The column to read from a row."""
        return self.column or self.name

    def label(self, cell: Any, where: str) -> float:
        """The label in a cell; NaN for an empty one."""
        text = "" if cell is None else str(int(cell) if isinstance(cell, bool) else cell).strip()
        known = {name: float(i) for i, name in enumerate(self.classes)} | (self.values or {})
        if not text:
            return float("nan")
        if text in known:
            return known[text]
        try:
            return float(text)
        except ValueError:
            words = (
                f"a number or one of {', '.join(known)}" if known else "a number; say in `values` what it stands for"
            )
            raise UserError(f"{where}: {self.path} is {text[:40]!r}, not {words}") from None


class ImageTable(ImageData):
    """Images with a table of their labels; rows and images are matched by file name without the suffix.

    A row is one of three things: a line of a CSV file; a record of a JSON file, which holds a list of records or maps
    image names to them; or a JSON file named after the image, in a folder. If a record is a list, as in the FFHQ
    features data set, its first element is read, and an empty list leaves all labels unknown.

    Every image needs a row, unless the table is a folder, where the labels of an image without a file are unknown.
    Rows of other images are ignored. Two columns, or two keys of a record, must not differ only in case.

    Args:
        images: folder of image files, or an LMDB.
        table: a .csv or .json file, or a folder of .json files.
        columns: the attributes to read.
        key: the column of a CSV file (its first by default), or the entry of each record in a JSON list, that holds
            the image's name.
        partition: file of names and 0 (train), 1 (val) or 2 (test); by default a hash of the id decides.
    """

    def __init__(
        self,
        images: Path,
        table: Path,
        columns: list[Column],
        key: str | None = None,
        partition: Path | None = None,
    ) -> None:
        super().__init__(images=images, table=table, columns=columns, key=key, partition=partition)
        if not columns:
            raise UserError(f"{table}: no columns; give at least one")
        self.images, self.table, self.columns = images, table, columns
        self.key, self.partition = key, partition

    def read(self, image_size: int | None = None) -> AnnotatedImages:
        """The images in order of id.

        Raises:
            UserError: an image without a row, a column that no row has, a word without a label, a label out of range,
                or a malformed file.
        """
        images = find_images(self.images, image_size)
        rows = _read_rows(self.table, self.key)
        at = match_rows([row.name for row in rows], images, self.table)
        if not at:
            raise UserError(f"{self.table}: none of its {len(rows)} rows names an image of {self.images}; check both")
        ids = sorted(images)
        if not self.table.is_dir():
            refuse_missing(
                [i for i in ids if i not in at],
                f"images of {self.images} have no row in {self.table}; add one or move the image elsewhere",
            )
        matched = [rows[at[i]] if i in at else _Row(i, str(self.table), {}) for i in ids]
        for column in self.columns:
            if not any(row.has(column.path) for row in matched):
                known = next((row.paths() for row in matched if row.cells), [])
                raise UserError(f"{self.table}: no row has {column.path} (there are: {', '.join(known) or 'none'})")
        labels = [[c.label(row.get(c.path), row.where) for c in self.columns] for row in matched]
        return AnnotatedImages(
            ids,
            torch.tensor(labels, dtype=torch.float32),
            AttributeSchema(tuple(Attribute(c.name, c.kind, c.classes, c.low, c.high) for c in self.columns)),
            read_splits(self.partition, ids) if self.partition else None,
            paths=[images[i] for i in ids],
        )


@dataclass(frozen=True)
class _Row:
    name: str
    where: str
    """File and line or name, for messages."""
    cells: Mapping[str, Any]

    def get(self, path: str) -> Any:
        if path in self.cells:
            return self.cells[path]
        cell: Any = self.cells
        for name in path.split("."):
            cell = cell.get(name) if isinstance(cell, Mapping) else None
        return cell

    def has(self, path: str) -> bool:
        parent, _, name = path.rpartition(".")
        holder = self.get(parent) if parent else self.cells
        return path in self.cells or (isinstance(holder, Mapping) and name in holder)

    def paths(self) -> list[str]:
        def walk(cells: Mapping[str, Any], prefix: str) -> list[str]:
            return [
                path
                for name, cell in cells.items()
                for path in (walk(cell, f"{prefix}{name}.") if isinstance(cell, Mapping) else [f"{prefix}{name}"])
            ]

        return walk(self.cells, "")


def _read_rows(table: Path, key: str | None) -> list[_Row]:
    if table.is_dir():
        if key:
            raise UserError(f"{table}: its files are named after their images; leave out key")
        return [_row(path.stem, str(path), load_json(path)) for path in sorted(table.rglob("*.json"))]
    suffix = table.suffix.lower()
    if suffix == ".csv":
        return _csv_rows(table, key)
    if suffix == ".json":
        return _json_rows(table, key)
    raise UserError(f"{table} is neither a .csv or .json file nor a folder of .json files; give one of these")


def _csv_rows(table: Path, key: str | None) -> list[_Row]:
    reader = csv.reader(StringIO(read_text(table), newline=""), skipinitialspace=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"{table} line {reader.line_num}: {error}; correct the file") from None
    if not lines:
        raise UserError(f"{table} is empty; it needs a header line")
    (_, header), *rows = lines
    refuse_alike(header, f"{table} line 1")
    if key and key not in header:
        raise UserError(f"{table} line 1: no column {key} (there are: {', '.join(header)})")
    at = header.index(key) if key else 0
    for n, cells in rows:
        if len(cells) != len(header):
            raise UserError(f"{table} line {n}: {len(cells)} cells, but the header has {len(header)}; correct the row")
    return [_row(cells[at], f"{table} line {n}", dict(zip(header, cells, strict=True))) for n, cells in rows]


def _json_rows(table: Path, key: str | None) -> list[_Row]:
    data = load_json(table)
    if isinstance(data, dict):
        if key:
            raise UserError(f"{table} holds its records by name; leave out key")
        return [_row(name, f"{table} record {name}", record) for name, record in data.items()]
    if not isinstance(data, list):
        raise UserError(f"{table} holds neither records by image name nor a list of them; give another file")
    for n, record in enumerate(data, 1):
        if not isinstance(record, dict) or key is None or record.get(key) is None:
            missing = f"no entry {key}" if key else "no image name; say in `key` which entry holds it"
            raise UserError(f"{table} record {n}: {missing}")
    return [_row(str(record[key]), f"{table} record {record[key]}", record) for record in data]


def _row(name: str, where: str, record: Any) -> _Row:
    if isinstance(record, list):
        record = record[0] if record else None
    if not isinstance(record, dict | None):
        raise UserError(f"{where}: expected a record of names and values, or a list of one; correct it")
    _refuse_alike_within(record, where)
    return _Row(image_id(name), where, record or {})


def _refuse_alike_within(cell: Any, where: str) -> None:
    if isinstance(cell, Mapping):
        refuse_alike(list(cell), where)
        for inner in cell.values():
            _refuse_alike_within(inner, where)

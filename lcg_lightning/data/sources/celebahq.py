"""CelebA-HQ's layout: a folder of images, an attribute file, and measure files such as the head pose."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.images import AnnotatedImages, ImageData, bare_number, find_images, image_id, match_rows
from lcg_lightning.data.rows import SPLITS
from lcg_lightning.errors import UserError


def read_table(path: str | Path) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """Read a file of the form all annotation files share: a count, a line of column names, then rows.

    Returns:
        the column names (C), the row ids (N, file names without suffix), and the values (N, C) float32.

    Raises:
        UserError: not such a file, fewer or more rows than its count, a row of another width, a value that is
            no number, or a row given twice; the message names file and line.
    """
    path = Path(path)
    lines = read_text(path).splitlines()
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise UserError(f"{path} line 1: expected the number of rows, then a line of column names")
    columns = lines[1].split()
    rows = [line.split() for line in lines[2:]]
    while rows and not rows[-1]:
        rows.pop()
    for i, row in enumerate(rows, 3):
        if len(row) != len(columns) + 1:
            raise UserError(f"{path} line {i}: expected a file name and {len(columns)} values, found {len(row)} words")
    if len(rows) != int(lines[0]):
        raise UserError(f"{path}: line 1 says {int(lines[0])} rows but there are {len(rows)}; restore the whole file")
    ids = [image_id(row[0]) for row in rows]
    _refuse_repeated(path, ids)
    try:
        values = np.array([row[1:] for row in rows]).astype(np.float32).reshape(len(rows), len(columns))
    except ValueError:
        line, word = next((i, w) for i, row in enumerate(rows, 3) for w in row[1:] if not _is_number(w))
        raise UserError(f"{path} line {line}: {word!r} is not a number") from None
    return columns, ids, values


class CelebAHQ(ImageData):
    """Images with an attribute file; rows and images are matched by file name without the suffix.

    Args:
        images: folder of image files, or an LMDB.
        annotations: attribute file, with values -1 and 1 (``CelebAMask-HQ-attribute-anno.txt``).
        attributes: the binary attributes to keep, in this order; all of them by default.
        measure_files: files of numbers in the same form (``CelebAMask-HQ-pose-anno.txt``).
        measures: the columns of those files to keep, as continuous attributes with their range.
        partition: file of names and 0 (train), 1 (val) or 2 (test) (``list_eval_partition.txt``); by default a hash
            of the id decides.
        mapping: ``CelebA-HQ-to-CelebA-mapping.txt``, for a partition whose names are CelebA's own.
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        attributes: list[str] | None = None,
        measure_files: list[Path] | None = None,
        measures: list[Attribute] | None = None,
        partition: Path | None = None,
        mapping: Path | None = None,
    ) -> None:
        super().__init__(
            images=images,
            annotations=annotations,
            attributes=attributes,
            measure_files=measure_files,
            measures=measures,
            partition=partition,
            mapping=mapping,
        )
        if bool(measure_files) != bool(measures):
            raise UserError("measures need both their files and the columns to keep; give both or neither")
        if mapping and not partition:
            raise UserError(f"mapping {mapping} serves to read a partition, and there is none; give both or neither")
        self.images, self.annotations, self.attributes = images, annotations, attributes
        self.measure_files, self.measures = measure_files or [], measures or []
        self.partition, self.mapping = partition, mapping

    def read(self, image_size: int | None = None) -> AnnotatedImages:
        """The images in the order of the annotation file; label columns are attributes, then measures.

        Raises:
            UserError: images without a row or rows without an image, a value other than -1 or 1, an unknown
                attribute or measure (the nearest name is given), a measure out of its range, or a malformed file.
        """
        names, rows, signs = read_table(self.annotations)
        wrong = np.argwhere(np.abs(signs) != 1)
        if len(wrong):
            row, column = wrong[0]
            raise UserError(
                f"{self.annotations} line {row + 3}: {names[column]} is {signs[row, column]:g}, not -1 or 1 "
                f"({len(wrong)} such values); correct the file"
            )
        images = find_images(self.images, image_size)
        at = match_rows(rows, images, self.annotations)
        matched = set(at.values())
        refuse_missing(
            [name for row, name in enumerate(rows) if row not in matched],
            f"rows of {self.annotations} have no image in {self.images}; add it or drop the row",
        )
        refuse_missing(
            [i for i in images if i not in at],
            f"images of {self.images} have no row in {self.annotations}; add one or move the image elsewhere",
        )
        ids = list(at)
        kept = [_column(self.annotations, names, a) for a in (names if self.attributes is None else self.attributes)]
        schema, values = self._read_measures(ids)
        labels = torch.from_numpy(np.concatenate([(signs[:, kept] > 0).astype(np.float32), values], axis=1))
        return AnnotatedImages(
            ids,
            labels,
            AttributeSchema((*(Attribute(names[i]) for i in kept), *schema)),
            self._read_splits(ids),
            paths=[images[i] for i in ids],
        )

    def _read_measures(self, ids: list[str]) -> tuple[list[Attribute], NDArray[np.float32]]:
        header: list[str] = []
        numbers = [np.empty((len(ids), 0), np.float32)]
        for file in self.measure_files:
            columns, rows, values = read_table(file)
            at = match_rows(rows, ids, file)
            refuse_missing([i for i in ids if i not in at], f"images have no row in {file}; add it")
            header += columns
            numbers.append(values[[at[i] for i in ids]])
        kept, schema = [], []
        for measure in self.measures:
            column = _column(", ".join(map(str, self.measure_files)), header, measure.name)
            if measure.kind != "continuous":
                raise UserError(f"measure {measure.name} must be continuous, with low and high, not {measure.kind}")
            kept.append(column)
            schema.append(replace(measure, name=header[column]))
        return schema, np.concatenate(numbers, axis=1)[:, kept]

    def _read_splits(self, ids: list[str]) -> list[str] | None:
        if self.partition is None:
            return None
        return read_splits(self.partition, read_mapping(self.mapping, ids) if self.mapping else ids)


def read_mapping(path: str | Path, ids: Sequence[str]) -> list[str]:
    """The CelebA image that each CelebA-HQ image was made from, both without suffix.

    Args:
        path: file of rows ``number, CelebA's number, CelebA's file name`` (``CelebA-HQ-to-CelebA-mapping.txt``).
        ids: numbers of CelebA-HQ images.

    Raises:
        UserError: a malformed or repeated row, or an image without one. Rows of other images are no error.
    """
    path = Path(path)
    lines = read_text(path).splitlines()
    if not lines or lines[0].split() != ["idx", "orig_idx", "orig_file"]:
        raise UserError(f"{path} line 1: expected idx orig_idx orig_file; give CelebA-HQ-to-CelebA-mapping.txt")
    rows = [(n, line.split()) for n, line in enumerate(lines[1:], 2) if line.strip()]
    for n, row in rows:
        if len(row) != 3 or not (row[0].isdigit() and row[1].isdigit()):
            raise UserError(f"{path} line {n}: expected two numbers and a file name; correct the row")
    _refuse_repeated(path, [row[0] for _, row in rows])
    original = {bare_number(row[0]): image_id(row[2]) for _, row in rows}
    refuse_missing([i for i in ids if bare_number(i) not in original], f"images have no row in {path}; add it")
    return [original[bare_number(i)] for i in ids]


def read_splits(path: str | Path, ids: Sequence[str]) -> list[str]:
    """The split of each id, from rows ``name number`` as in list_eval_partition.txt: 0 train, 1 val, 2 test.

    Raises:
        UserError: a malformed or repeated row, or an id without one. Rows of other images are no error.
    """
    path = Path(path)
    split: dict[str, str] = {}
    rows = [(n, line.split()) for n, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    for n, row in rows:
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise UserError(f"{path} line {n}: expected a file name and 0 (train), 1 (val) or 2 (test)")
        split[image_id(row[0])] = SPLITS[int(row[1])]
    _refuse_repeated(path, [image_id(row[0]) for _, row in rows])
    refuse_missing([i for i in ids if i not in split], f"images have no row in {path}; add it")
    return [split[i] for i in ids]


def write_attributes(path: str | Path, names: Sequence[str], ids: Sequence[str], labels: Tensor) -> None:
    """Write binary labels (N, A), 0 or 1, of the image files ``ids`` in the attribute file's form."""
    if not ((labels == 0) | (labels == 1)).all():
        raise UserError(f"{path}: attributes can only be written as 0 or 1, and some label is neither")
    signs = (2 * labels - 1).int().tolist()
    _write_table(path, names, [f"{i}  {' '.join(map(str, row))}" for i, row in zip(ids, signs, strict=True)])


def write_measures(path: str | Path, names: Sequence[str], ids: Sequence[str], values: Tensor) -> None:
    """Write numbers (N, C) of the image files ``ids`` in the pose file's form, to full float32 precision."""
    rows = values.float().numpy()
    _write_table(path, names, [f"{i} {' '.join(map(str, row))}" for i, row in zip(ids, rows, strict=True)])


def write_splits(path: str | Path, ids: Sequence[str], splits: Sequence[str]) -> None:
    """Write the split of each image file in the form :func:`read_splits` reads."""
    rows = [f"{i} {SPLITS.index(split)}\n" for i, split in zip(ids, splits, strict=True)]
    Path(path).write_text("".join(rows), encoding="utf-8")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; a UserError if there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None


def refuse_missing(missing: Sequence[str], text: str) -> None:
    """Raise a UserError of this text about names, if there are any, with their number and the first."""
    if missing:
        raise UserError(f"{len(missing)} {text} (first: {missing[0]})")


def _write_table(path: str | Path, names: Sequence[str], rows: list[str]) -> None:
    Path(path).write_text("\n".join([str(len(rows)), " ".join(names), *rows, ""]), encoding="utf-8")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _column(where: str | Path, names: Sequence[str], name: str) -> int:
    try:
        return AttributeSchema(tuple(Attribute(n) for n in names)).index(name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _refuse_repeated(path: Path, ids: Sequence[str]) -> None:
    twice = [i for i, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {twice[0]} has more than one row ({len(twice)} such names); keep one of them")

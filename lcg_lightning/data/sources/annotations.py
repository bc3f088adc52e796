"""Reads, checks and writes annotation files in CelebA's format: space-separated words, one image per line."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lcg_lightning.data.images import bare_number, image_id
from lcg_lightning.data.rows import SPLITS
from lcg_lightning.errors import UserError
from lcg_lightning.files import read_text


def read_table(path: str | Path) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """Read an annotation file: a count, a line of column names, then rows.

    Returns:
        The C column names, the N row ids (file names without suffix), and the values (N, C) float32.

    Raises:
        UserError: the file has another format, the number of rows differs from the count, a row has another width, a
            value is not a number, a row occurs twice, or column names differ only in case; the message names the file
            and the line.
    """
    path = Path(path)
    lines = read_text(path).splitlines()
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise UserError(f"{path} line 1: expected the number of rows, then a line of column names")
    columns = lines[1].split()
    refuse_alike(columns, f"{path} line 2")
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


def read_mapping(path: str | Path, ids: Sequence[str]) -> list[str]:
    """The CelebA image that each CelebA-HQ image was made from, both without suffix.

    Args:
        path: file with rows ``number, CelebA's number, CelebA's file name`` (``CelebA-HQ-to-CelebA-mapping.txt``).
        ids: numbers of CelebA-HQ images.

    Raises:
        UserError: a row is malformed or repeated, or an image has none. Rows of other images are ignored.
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
        UserError: a row is malformed or repeated, or an id has none. Rows of other images are ignored.
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
    """Write binary labels (N, A), 0 or 1, of the image files ``ids`` in the attribute file's format."""
    if not ((labels == 0) | (labels == 1)).all():
        raise UserError(f"{path}: attributes can only be written as 0 or 1, and some label is neither")
    signs = (2 * labels - 1).int().tolist()
    _write_table(path, names, [f"{i}  {' '.join(map(str, row))}" for i, row in zip(ids, signs, strict=True)])


def write_measures(path: str | Path, names: Sequence[str], ids: Sequence[str], values: Tensor) -> None:
    """Write numbers (N, C) of the image files ``ids`` in the pose file's format, with full float32 precision."""
    rows = values.float().numpy()
    _write_table(path, names, [f"{i} {' '.join(map(str, row))}" for i, row in zip(ids, rows, strict=True)])


def write_splits(path: str | Path, ids: Sequence[str], splits: Sequence[str]) -> None:
    """Write the split of each image file in the format that :func:`read_splits` reads."""
    rows = [f"{i} {SPLITS.index(split)}\n" for i, split in zip(ids, splits, strict=True)]
    Path(path).write_text("".join(rows), encoding="utf-8")


def refuse_missing(missing: Sequence[str], text: str) -> None:
    """If there are missing names, raise a UserError with their number, this text, and the first name."""
    if missing:
        raise UserError(f"{len(missing)} {text} (first: {missing[0]})")


def refuse_alike(names: Sequence[str], where: str) -> None:
    """Raise a UserError if two names differ only in case, which attributes ignore."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise UserError(f"{where}: two columns are named {other} and {name}; rename or remove one")


def _write_table(path: str | Path, names: Sequence[str], rows: list[str]) -> None:
    Path(path).write_text("\n".join([str(len(rows)), " ".join(names), *rows, ""]), encoding="utf-8")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _refuse_repeated(path: Path, ids: Sequence[str]) -> None:
    twice = [i for i, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {twice[0]} has more than one row ({len(twice)} such names); keep one of them")

"""CelebA-HQ's layout: a folder of images, an attribute file, and measure files such as the head pose."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.store import SPLITS, check_labels
from lcg_lightning.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """Image files and what is known about them. Row i of each field is image i."""

    paths: list[Path]
    ids: list[str]
    """File names without the suffix; unique."""
    labels: Tensor
    """(N, A) float32 in natural units, NaN where unknown."""
    schema: AttributeSchema

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.ids):
            raise UserError(f"{len(self.paths)} image paths for {len(self.ids)} ids; give one id per image")
        check_labels(self.labels, self.schema, self.ids)


def image_id(name: str) -> str:
    """A file name without its image suffix: what annotation rows and image files are matched by.

    >>> image_id("7.jpg"), image_id("7.PNG"), image_id("st.peter")
    ('7', '7', 'st.peter')
    """
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def find_images(folder: str | Path) -> dict[str, Path]:
    """The images right inside a folder, by id, in order of name.

    Raises:
        UserError: no such folder, no images in it, or two images with the same id.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the images")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            other = found.setdefault(image_id(path.name), path)
            if other is not path:
                raise UserError(f"{folder}: {other.name} and {path.name} share one name; keep one of them")
    if not found:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return found


def read_table(path: str | Path) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """Read a file of the form all annotation files share: a count, a line of column names, then rows.

    Returns:
        the column names (C), the row ids (N, file names without suffix), and the values (N, C) float32.

    Raises:
        UserError: not such a file, fewer or more rows than its count, a row of another width, a value that is
            no number, or a row given twice; the message names file and line.
    """
    path = Path(path)
    lines = _lines(path)
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


def read_celebahq(
    images: str | Path,
    annotations: str | Path,
    attributes: Sequence[str] | None = None,
    measure_files: Sequence[str | Path] = (),
    measures: Sequence[Attribute] = (),
) -> AnnotatedImages:
    """Read an image folder with its annotations; rows and images are matched by file name without the suffix.

    Args:
        images: folder of image files.
        annotations: attribute file, with values -1 and 1 (``CelebAMask-HQ-attribute-anno.txt``).
        attributes: the binary attributes to keep, in this order; all of them by default.
        measure_files: files of numbers in the same form (``CelebAMask-HQ-pose-anno.txt``).
        measures: the columns of those files to keep, as continuous attributes with their range.

    Returns:
        the images in the order of the annotation file; label columns are ``attributes``, then ``measures``.

    Raises:
        UserError: images without a row or rows without an image, a value other than -1 or 1, an unknown
            attribute or measure (the nearest name is given), a measure out of its range, or a malformed file.
    """
    names, ids, signs = read_table(annotations)
    wrong = np.argwhere(np.abs(signs) != 1)
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{annotations} line {row + 3}: {names[column]} is {signs[row, column]:g}, not -1 or 1 "
            f"({len(wrong)} such values); correct the file"
        )
    paths = find_images(images)
    known = set(ids)
    _refuse_missing(
        [i for i in ids if i not in paths],
        f"rows of {annotations} have no image in {images}; add it or drop the row",
    )
    _refuse_missing(
        [p.name for i, p in paths.items() if i not in known],
        f"images of {images} have no row in {annotations}; add one or move the image elsewhere",
    )
    kept = [_column(annotations, names, a) for a in (names if attributes is None else attributes)]
    labels: list[NDArray[np.float32]] = [(signs[:, kept] > 0).astype(np.float32)]
    schema = [Attribute(names[i]) for i in kept]
    if bool(measure_files) != bool(measures):
        raise UserError("measures need both their files and the columns to keep; give both or neither")
    header: list[str] = []
    numbers: list[NDArray[np.float32]] = []
    for file in measure_files:
        columns, rows, values = read_table(file)
        at = {i: row for row, i in enumerate(rows)}
        _refuse_missing([i for i in ids if i not in at], f"images have no row in {file}; add it")
        header += columns
        numbers += list(values[[at[i] for i in ids]].T)
    for measure in measures:
        column = _column(", ".join(map(str, measure_files)), header, measure.name)
        if measure.kind != "continuous":
            raise UserError(f"measure {measure.name} must be continuous, with low and high, not {measure.kind}")
        labels.append(numbers[column][:, None])
        schema.append(replace(measure, name=header[column]))
    table = torch.from_numpy(np.concatenate(labels, axis=1))
    return AnnotatedImages([paths[i] for i in ids], ids, table, AttributeSchema(tuple(schema)))


def read_splits(path: str | Path, ids: Sequence[str]) -> list[str]:
    """The split of each id, from rows ``name number`` as in list_eval_partition.txt: 0 train, 1 val, 2 test.

    Raises:
        UserError: a malformed or repeated row, or an id without one. Rows of other images are no error.
    """
    path = Path(path)
    split: dict[str, str] = {}
    rows = [(n, line.split()) for n, line in enumerate(_lines(path), 1) if line.strip()]
    for n, row in rows:
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise UserError(f"{path} line {n}: expected a file name and 0 (train), 1 (val) or 2 (test)")
        split[image_id(row[0])] = SPLITS[int(row[1])]
    _refuse_repeated(path, [image_id(row[0]) for _, row in rows])
    _refuse_missing([i for i in ids if i not in split], f"images have no row in {path}; add it")
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


class ImageFiles(Dataset[Tensor]):
    """Images (3, size, size) float32 in [-1, 1], read from files.

    Args:
        paths: the files.
        size: height and width the generator takes.
        resize: scale square images of another size with an antialiased filter, instead of refusing them.
    """

    def __init__(self, paths: Sequence[Path], size: int, *, resize: bool = False) -> None:
        self.paths = list(paths)
        self.size = size
        self.resize = resize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} cannot be read as an image ({reason}); replace the file") from None
        expected = (self.size, self.size)
        if image.size != expected and self.resize and image.width == image.height:
            image = image.resize(expected, Image.Resampling.LANCZOS)
        if image.size != expected:
            how = "crop it to a square first" if self.resize else "resize it, or turn on resize"
            found = f"{image.width}x{image.height}"
            raise UserError(f"{path} is {found} pixels, and the generator takes {self.size}x{self.size}; {how}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None


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


def _refuse_missing(missing: Sequence[str], text: str) -> None:
    if missing:
        raise UserError(f"{len(missing)} {text} (first: {missing[0]})")

"""Images in a folder or an LMDB, what is known about them, and the data sets that a configuration can name."""

import os
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.rows import SPLITS, check_labels
from lcg_lightning.errors import UserError
from lcg_lightning.files import plain

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True)
class LMDBImage:
    """An image file that is a record of an LMDB."""

    folder: Path
    """The LMDB: a folder with data.mdb, or such a file itself."""
    key: str

    def __str__(self) -> str:
        return f"{self.folder} record {self.key}"


ImageRef = Path | LMDBImage
"""Where an image is."""


def image_id(name: str) -> str:
    """A file name without its image suffix: what annotation rows and image files are matched by.

    >>> image_id("7.jpg"), image_id("7.PNG"), image_id("st.peter")
    ('7', '7', 'st.peter')
    """
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def find_images(folder: str | Path, size: int | None = None) -> dict[str, ImageRef]:
    """The images in a folder and the folders below, or in an LMDB, by id and in order of path or number.

    An LMDB has records ``{size}-{number}``, numbers from 0 with leading zeros, and ``length``, their count. An id
    there is the number without leading zeros.

    Args:
        folder: a folder of image files, or an LMDB: a folder with data.mdb, or a file .lmdb or .mdb.
        size: which images to take from an LMDB that holds several sizes of each.

    Raises:
        UserError: neither of these, no images in it, two files with the same id, an LMDB that is not whole.
    """
    folder = Path(folder)
    file = _data_file(folder)
    if file.is_file() and file.suffix in (".lmdb", ".mdb"):
        return _find_records(folder, size)
    if not folder.is_dir():
        raise UserError(f"{folder} is neither a folder nor an LMDB; give the folder that holds the images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            other = found.setdefault(image_id(path.name), path)
            if other is not path:
                names = f"{other.relative_to(folder)} and {path.relative_to(folder)}"
                raise UserError(f"{folder}: {names} share one name; keep one of them, or give the folder of one")
    if not found:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}, or data.mdb)")
    return {**found}


def open_image(ref: ImageRef) -> Image.Image:
    """The picture there, loaded and turned upright.

    Raises:
        UserError: there is none, or it is damaged.
    """
    source: Path | BytesIO
    if isinstance(ref, LMDBImage):
        with _record(ref) as data:
            source = BytesIO(data)
    else:
        source = ref
    try:
        with Image.open(source) as file:
            return ImageOps.exif_transpose(file)
    except Exception as error:  # a damaged picture can fail in any way
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise UserError(f"{ref} cannot be read as an image ({reason}); replace it") from None


def stamp(ref: ImageRef) -> tuple[int, int]:
    """Size in bytes and time of change of an image file; a record has the time of its LMDB.

    Raises:
        UserError: it is gone.
    """
    try:
        file = (_data_file(ref.folder) if isinstance(ref, LMDBImage) else ref).stat()
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); restore the file") from None
    if isinstance(ref, LMDBImage):
        with _record(ref) as data:
            return len(data), file.st_mtime_ns
    return file.st_size, file.st_mtime_ns


def bare_number(name: str) -> str:
    """A name of digits without leading zeros; any other name as it is."""
    return name.lstrip("0") or "0" if re.fullmatch("[0-9]+", name) else name


def match_rows(names: Sequence[str], images: Iterable[str], table: str | Path) -> dict[str, int]:
    """The row of each image, in order of rows; rows of other images are left out.

    A row belongs to the image with its name; a number that names none, to the image with the same number, whatever
    the leading zeros.

    Args:
        names: of the rows.
        images: ids of the images.
        table: where the rows stand, for messages.

    Raises:
        UserError: two rows for one image.

    >>> match_rows(["00017", "x", "3"], ["0003", "17"], "table.csv")
    {'17': 0, '0003': 2}
    """
    found: dict[str, int] = {}
    known = set(images)
    by_number = {bare_number(image): image for image in images}
    for row, name in enumerate(names):
        image = name if name in known else by_number.get(bare_number(name), name)
        if image in known and found.setdefault(image, row) != row:
            raise UserError(f"{table}: rows {names[found[image]]} and {name} both name image {image}; keep one of them")
    return found


class ImageFiles(Dataset[Tensor]):
    """Images (3, size, size) float32 in [-1, 1], turned upright.

    Args:
        refs: where they are.
        size: height and width the generator takes.
        resize: scale square images of another size with an antialiased filter, instead of refusing them.
    """

    def __init__(self, refs: Sequence[ImageRef], size: int, *, resize: bool = False) -> None:
        self.refs = list(refs)
        self.size = size
        self.resize = resize

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Tensor:
        ref = self.refs[index]
        image = _rgb(open_image(ref), ref)
        expected = (self.size, self.size)
        if image.size != expected and self.resize and image.width == image.height:
            image = image.resize(expected, Image.Resampling.LANCZOS)
        if image.size != expected:
            how = "crop it to a square first" if self.resize else "resize it, or turn on resize"
            found = f"{image.width}x{image.height}"
            raise UserError(f"{ref} is {found} pixels, and the generator takes {self.size}x{self.size}; {how}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Annotated:
    """What is known about images. Row i of each field is image i."""

    ids: list[str]
    """Unique names."""
    labels: Tensor
    """(N, A) float32 in natural units, NaN where unknown."""
    schema: AttributeSchema
    splits: list[str] | None = None
    """"train", "val" or "test"; None leaves it to a hash of the id."""

    def __post_init__(self) -> None:
        check_labels(self.labels, self.schema, self.ids)
        n = len(self.ids)
        if self.splits is not None and (len(self.splits) != n or not set(self.splits) <= set(SPLITS)):
            raise UserError(f"splits must name one of {', '.join(SPLITS)} for each of the {n} ids")


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotatedImages(Annotated):
    """Images and what is known about them."""

    paths: Sequence[ImageRef]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.paths) != len(self.ids):
            raise UserError(f"{len(self.paths)} image paths for {len(self.ids)} ids; give one id per image")


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotatedLatents(Annotated):
    """Latents and what is known about their images."""

    latents: Tensor
    """(N, *shape) float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.latents) != len(self.ids):
            raise UserError(f"{len(self.latents)} latents for {len(self.ids)} ids; give one id per latent")


class DataSource:
    """What a configuration names by class to be made into a latent store."""

    def __init__(self, **config: Any) -> None:
        self.config: dict[str, Any] = plain(config)
        """What the data set was made with, in plain JSON values."""


class ImageData(DataSource, ABC):
    """A data set of labelled images."""

    @abstractmethod
    def read(self, image_size: int | None = None) -> AnnotatedImages:
        """Find its images and read their labels.

        Args:
            image_size: which images to take from an LMDB that holds several sizes of each.
        """


class LatentData(DataSource, ABC):
    """A data set of labelled latents of a known generator."""

    @abstractmethod
    def read(self, latent_shape: tuple[int, ...]) -> AnnotatedLatents:
        """Read its latents, as a generator with latents of this shape takes them, and their labels."""


def _rgb(image: Image.Image, ref: ImageRef) -> Image.Image:
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA"):
        raise UserError(f"{ref} has mode {image.mode}; save it as 8-bit RGB")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise UserError(f"{ref} has mode {image.mode} with transparent pixels; put it on a background and save it")
    return image.convert("RGB")


def _data_file(folder: Path) -> Path:
    return folder / "data.mdb" if folder.is_dir() else folder


@cache
def _environment(file: Path) -> Any:
    import lmdb

    environment = lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=False)
    whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < whole:  # reading what is mapped but not there would kill the process
        raise UserError(f"{file} is cut short, at {file.stat().st_size} of {whole} bytes; fetch it again")
    return environment


if hasattr(os, "register_at_fork"):  # a child may not use what its parent opened, and cannot open it again
    os.register_at_fork(before=_environment.cache_clear)


@contextmanager
def _transaction(folder: Path) -> Iterator[Any]:
    try:
        import lmdb
    except ImportError:
        raise UserError(f"{folder} is an LMDB; to read it, pip install 'lcg-lightning[lmdb]'") from None
    try:
        with _environment(_data_file(folder)).begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise UserError(f"{folder} cannot be read as an LMDB ({error}); fetch it again") from None


@contextmanager
def _record(ref: LMDBImage) -> Iterator[memoryview]:
    with _transaction(ref.folder) as transaction:
        data = transaction.get(ref.key.encode())
        if data is None:
            raise UserError(f"{ref} is not there; fetch the LMDB again")
        yield data


def _find_records(folder: Path, size: int | None) -> dict[str, ImageRef]:
    with _transaction(folder) as transaction:
        length = bytes(transaction.get(b"length") or b"")
        keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
    if not length.isdigit():
        raise UserError(f"{folder} has no record `length` that counts its images; fetch it again")
    sizes: dict[int, dict[int, str]] = defaultdict(dict)
    for key in keys:
        if name := re.fullmatch(rb"([0-9]+)-([0-9]+)", key):
            sizes[int(name[1])][int(name[2])] = key.decode()
    if not sizes:
        raise UserError(f"{folder} holds no images (records such as 256-00000); give another LMDB")
    if len(sizes) == 1:
        (size,) = sizes
    if size not in sizes:
        raise UserError(f"{folder} holds images of size {', '.join(map(str, sorted(sizes)))}, not {size}; name one")
    images, count = sizes[size], int(length)
    gap = next((i for i in range(count) if i not in images), None)
    if gap is not None:
        raise UserError(f"{folder} has length {count} but no record {size}-{gap:05d}; fetch it again")
    if len(images) > count:
        raise UserError(f"{folder} has length {count} but {len(images)} images of size {size}; fetch it again")
    return {str(i): LMDBImage(folder, images[i]) for i in range(count)}

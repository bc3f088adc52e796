"""Images in folders and LMDBs: finding them, reading them as tensors, and matching them with table rows."""

import re
import warnings
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from lcg_lightning.data.lmdb import LMDB_SUFFIXES, LMDBImage, data_file, find_records, record
from lcg_lightning.errors import UserError
from lcg_lightning.files import require_file
from lcg_lightning.kept import keeps

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""The formats that are opened, regardless of suffix; for some others, Pillow would run external programs."""

ImageRef = Path | LMDBImage
"""Where an image is."""


def image_id(name: str) -> str:
    """A file name without its image suffix, which matches annotation rows with image files.

    >>> image_id("7.jpg"), image_id("7.PNG"), image_id("st.peter")
    ('7', '7', 'st.peter')
    """
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


@keeps
def find_images(folder: str | Path, size: int | None = None) -> dict[str, ImageRef]:
    """The images in a folder and its subfolders, or in an LMDB, by id, in order of path or number.

    An LMDB has records ``{size}-{number}``, with zero-padded numbers from 0, and ``length``, their count. The id is
    the number without leading zeros.

    Args:
        folder: a folder of image files, or an LMDB (a folder with data.mdb, or a .lmdb or .mdb file).
        size: size to read from an LMDB that holds several sizes of each image.

    Raises:
        UserError: ``folder`` is neither, or has no images; two files have the same id; or the LMDB is incomplete.
    """
    folder = Path(folder)
    file = data_file(folder)
    if file.is_file() and file.suffix in LMDB_SUFFIXES:
        return {**find_records(folder, size)}
    if not folder.is_dir():
        raise UserError(f"{folder} is neither a folder nor an LMDB; give the folder that holds the images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*"), key=lambda path: path.parts):
        if path.suffix.lower() in SUFFIXES:
            other = found.setdefault(image_id(path.name), path)
            if other is not path:
                names = f"{other.relative_to(folder)} and {path.relative_to(folder)}"
                raise UserError(f"{folder}: {names} share one name; keep one of them, or give the folder of one")
    if not found:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}, or data.mdb)")
    return {**found}


def open_image(ref: ImageRef) -> Image.Image:
    """The image, loaded and turned upright.

    Raises:
        UserError: the image is missing, damaged, too large, or in none of :data:`FORMATS`.
    """
    source: Path | BytesIO
    if isinstance(ref, LMDBImage):
        with record(ref) as data:
            source = BytesIO(data)
    else:
        require_file(ref, "an image file")
        source = ref
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as file:
                return ImageOps.exif_transpose(file)
    except Exception as error:  # a damaged image can fail in any way
        known = f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        reason = known if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise UserError(f"{ref} cannot be read as an image ({reason}); replace it") from None


def stamp(ref: ImageRef) -> tuple[int, int]:
    """Size in bytes and modification time of an image file; a record has the time of its LMDB.

    Raises:
        UserError: the file is gone or is not a regular file.
    """
    path = data_file(ref.folder) if isinstance(ref, LMDBImage) else ref
    require_file(path, "an image file")
    file = path.stat()
    if isinstance(ref, LMDBImage):
        with record(ref) as data:
            return len(data), file.st_mtime_ns
    return file.st_size, file.st_mtime_ns


def bare_number(name: str) -> str:
    """Strips leading zeros from a name that consists of digits; other names are unchanged."""
    return name.lstrip("0") or "0" if re.fullmatch("[0-9]+", name) else name


def match_rows(names: Sequence[str], images: Iterable[str], table: str | Path) -> dict[str, int]:
    """The row of each image, in row order; rows of other images are left out.

    A row belongs to the image with its name. If there is none and the name is a number, it belongs to the image with
    that number, ignoring leading zeros.

    Args:
        names: names of the rows.
        images: ids of the images.
        table: the table's path, for messages.

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


def in_range(pixels: Tensor) -> Tensor:
    """Pixels in 0 to 255 as float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def in_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8 in 0 to 255, as files hold them; what lies outside is clamped.

    >>> in_bytes(torch.tensor([-1.2, -1, 0.001, 1])).tolist()
    [0, 0, 128, 255]
    """
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


class ImageFiles(Dataset[Tensor]):
    """Images (3, size, size) float32 in [-1, 1], turned upright.

    Args:
        refs: files or records.
        size: height and width that the generator takes.
        resize: scale square images of another size with an antialiasing filter, instead of refusing them.
    """

    def __init__(self, refs: Sequence[ImageRef], size: int, *, resize: bool = False) -> None:
        self.refs = list(refs)
        self.size = size
        self.resize = resize

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Tensor:
        return in_range(torch.from_numpy(self.pixels([index])))[0]

    def pixels(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Images (B, 3, size, size) in 0 to 255.

        Raises:
            UserError: an image cannot be read, or has another size.
        """
        images = np.stack([np.asarray(self._upright(self.refs[row])) for row in rows])
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def _upright(self, ref: ImageRef) -> Image.Image:
        image = rgb(open_image(ref), ref)
        expected = (self.size, self.size)
        if image.size != expected and self.resize and image.width == image.height:
            image = image.resize(expected, Image.Resampling.LANCZOS)
        if image.size != expected:
            how = "crop it to a square first" if self.resize else "resize it, or turn on resize"
            found = f"{image.width}x{image.height}"
            raise UserError(f"{ref} is {found} pixels, and the generator takes {self.size}x{self.size}; {how}")
        return image


def rgb(image: Image.Image, ref: ImageRef) -> Image.Image:
    """The image with 8 bits for each of red, green and blue.

    Raises:
        UserError: more bits, another colour space, or transparent pixels.
    """
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA"):
        raise UserError(f"{ref} has mode {image.mode}; save it as 8-bit RGB")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise UserError(f"{ref} has mode {image.mode} with transparent pixels; put it on a background and save it")
    return image.convert("RGB")

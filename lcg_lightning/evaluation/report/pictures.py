"""The same sources edited by every method, side by side, as images for the page."""

import base64
import io
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.report.columns import Row
from lcg_lightning.files import require_file

if TYPE_CHECKING:
    from PIL.Image import Image

_EDITS = "edits.png"
_SAMPLES = "samples.png"


@dataclass(frozen=True)
class Strip:
    """The first samples of one run."""

    row: Row
    images: list[str]
    """WebP files in base64, one per sample."""
    hits: list[bool | None]
    """Whether each meets all it was asked for; None where that was not measured or does not count."""


@dataclass(frozen=True)
class Gallery:
    """Methods that edited the same sources with the same noise."""

    asked: list[str]
    sources: list[str]
    strips: list[Strip]


def galleries(folder: Path, rows: Sequence[Row]) -> list[Gallery]:
    """The galleries of one table, of the best row of each method that kept its edits.

    Pictures that cannot be read are left out with a warning.

    Args:
        folder: folder with the records.
        rows: the rows of the table, best first.
    """
    found: dict[tuple[str, ...], Gallery] = {}
    for row in rows:
        single = row["runs"][0]
        record = folder / single["record"]
        path = record.with_name(_EDITS)
        if record.name != "record.json" or not path.is_file():
            continue
        try:
            asked, sources, results = _read(path)
        except UserError as error:
            logging.getLogger(__name__).warning("not shown: %s", error)
            continue
        gallery = found.setdefault((*asked, *sources), Gallery(asked, sources, []))
        if all(strip.row["method"] != row["method"] for strip in gallery.strips):
            gallery.strips.append(Strip(row, results, _hits(record, len(asked))))
    return list(found.values())


def link(folder: Path, out: Path, record: str) -> str | None:
    """The address of a run's picture of samples, as seen from the page; None if it is not below the page's folder.

    Args:
        folder: folder with the records.
        out: folder of the page.
        record: the record's path below ``folder``.
    """
    path, top = (folder / record).with_name(_SAMPLES).resolve(), out.resolve()
    if Path(record).name != "record.json" or not path.is_file() or not path.is_relative_to(top):
        return None
    return quote(path.relative_to(top).as_posix())


def _read(path: Path) -> tuple[list[str], list[str], list[str]]:
    """What each sample is asked for, and sources and results as WebP files in base64."""
    from PIL import Image, UnidentifiedImageError

    require_file(path, "the edits that `lcg test` wrote")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            asked: Any = json.loads(getattr(image, "text", {}).get("edits", "null"))
            whole = image.convert("RGB")
    except (OSError, ValueError, RecursionError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read ({error}); evaluate again to replace it") from error
    size = whole.height // 2
    if not isinstance(asked, list) or not asked or whole.size != (size * len(asked), 2 * size):
        raise UserError(f"{path}: {whole.width} x {whole.height} pixels are no sources above their edits")
    sources, results = (
        [_webp(whole.crop((i * size, top, (i + 1) * size, top + size))) for i in range(len(asked))] for top in (0, size)
    )
    return list(map(str, asked)), sources, results


def _webp(image: "Image") -> str:
    """A quarter of a PNG file's size, with differences that the eye does not see."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=95, method=6)
    return base64.b64encode(buffer.getvalue()).decode()


def _hits(record: Path, k: int) -> list[bool | None]:
    """Joint accuracy of the first k samples of a run; None for samples of which nothing is known."""
    from lcg_lightning.evaluation import records, samples

    values: list[float] = []
    with suppress(UserError):  # the table has warned of it
        found = samples.read(record.with_name(samples.FILE), records.read(record))
        values = found["acc_joint"][:k].tolist() if "acc_joint" in found else []
    return [None if x != x else x == 1.0 for x in values] + [None] * (k - len(values))

"""Uploaded pictures: bounded before they are decoded, turned upright, cropped and scaled for the generator."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lcg_lightning.data.images import FORMATS, in_range, open_image, rgb
from lcg_lightning.errors import UserError

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000
KEPT_SECONDS = 60
"""Longest time that an uploaded file which no page asks about stays on disk; one that is read goes at once."""


class Upload(NamedTuple):
    """An uploaded picture as the generator takes it."""

    image: Tensor
    """(3, S, S) float32 in [-1, 1]."""
    remark: str
    """What was done to it, for the visitor; empty if nothing was."""


def read_upload(file: Path, size: int) -> Upload:
    """Reads an uploaded picture and removes its file, also when it is refused.

    Args:
        file: the file; its name means nothing.
        size: height and width S that the generator takes.

    Raises:
        UserError: too many bytes or pixels, no picture of a known kind, or the file is gone.
    """
    try:
        return _read(file, size)
    except FileNotFoundError:  # another visitor's upload of the same picture was read meanwhile
        raise UserError("The upload is gone already; upload the picture again.") from None
    finally:
        file.unlink(missing_ok=True)


def _read(file: Path, size: int) -> Upload:
    if (length := file.stat().st_size) > MOST_BYTES:
        raise UserError(f"The file has {length / 2**20:.0f} MB; upload a picture of at most {MOST_BYTES >> 20} MB.")
    try:
        with Image.open(file, formats=FORMATS) as header:  # reads the size and decodes nothing
            width, height = header.size
    except Image.DecompressionBombError:  # far more than the bound below
        raise UserError(
            f"The picture has too many pixels; upload one of at most {MOST_PIXELS // 10**6} million."
        ) from None
    except Exception:  # a damaged file can fail in any way
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise UserError(f"The file cannot be read as a picture; upload a {kinds} file.") from None
    if width * height > MOST_PIXELS:
        raise UserError(
            f"The picture has {width} x {height} pixels; upload one of at most {MOST_PIXELS // 10**6} million."
        )
    try:
        picture = rgb(open_image(file), file)
    except UserError as error:
        reason = str(error).replace(f"{file} ", "")
        raise UserError(f"The picture {reason}.") from None
    square = min(picture.size)
    done = []
    if picture.width != picture.height:
        done.append(f"cropped to the {square} x {square} pixels in its middle")
    if square != size:
        done.append(f"scaled to {size} x {size}")
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    image = in_range(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    return Upload(image, f"The picture was {' and '.join(done)}." if done else "")


def sweep(folder: Path, age: float = KEPT_SECONDS) -> None:
    """Removes the files below a folder that are older than an age in seconds."""
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            with contextlib.suppress(OSError):  # such as that its visitor's page has read it
                if time.time() - file.stat().st_mtime > age:
                    file.unlink()


def keep_swept(folder: Path, every: float = KEPT_SECONDS / 2) -> None:
    """Sweeps a folder from now on, until the process ends."""

    def watch() -> None:
        while True:
            time.sleep(every)
            sweep(folder)

    threading.Thread(target=watch, name="sweep", daemon=True).start()

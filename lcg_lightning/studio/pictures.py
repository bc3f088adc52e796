"""Pictures as a page shows them: PNG files inside the page, so that nothing is kept on disk."""

import base64
import io
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from lcg_lightning.data.images import in_bytes

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), 0 to 255."""


def pixels(image: Tensor) -> Pixels:
    """What ``lcg edit`` writes of an image (1, 3, H, W) in [-1, 1]."""
    found: Pixels = in_bytes(image[0]).permute(1, 2, 0).cpu().numpy()
    return found


def png(picture: Pixels) -> bytes:
    """The content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def thumbnail(picture: Pixels, size: int = 256) -> Pixels:
    """A picture of at most ``size`` pixels in height and width."""
    image = Image.fromarray(picture)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def link(content: bytes, kind: str) -> str:
    """An address that holds its content.

    >>> link(b"lcg", "text/plain")
    'data:text/plain;base64,bGNn'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(picture: Pixels, caption: str, alt: str, note: str = "") -> str:
    """HTML of a picture with its caption and, in smaller letters, a note; texts are escaped.

    Args:
        picture: what to show.
        caption: line below it.
        alt: what it shows, for those who do not see it.
        note: second line below it.
    """
    small = f"<small>{escape(note)}</small>" if note else ""
    return (
        f'<figure><img src="{link(png(picture), "image/png")}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}{small}</figcaption></figure>"
    )


def download(name: str, content: bytes, kind: str, text: str) -> str:
    """HTML of a link that downloads a file, which is in the page already."""
    return f'<a class="download" download="{escape(name)}" href="{link(content, kind)}">{escape(text)}</a>'


def download_picture(name: str, picture: Pixels, text: str) -> str:
    """HTML of a link that downloads a picture as PNG."""
    return download(name, png(picture), "image/png", text)


def download_latents(name: str, latents: Tensor, text: str, **about: str) -> str:
    """HTML of a link that downloads latents (N, ...) as safetensors, with plain-text metadata."""
    content = save({"latents": latents.cpu().contiguous()}, metadata=about)
    return download(name, content, "application/octet-stream", text)

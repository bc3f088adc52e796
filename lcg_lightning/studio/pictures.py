"""Pictures as a page shows them: PNG files inside the page, so that nothing is kept on disk."""

import base64
import io
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.torch import save
from torch import Tensor

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), 0 to 255."""


def pixels(image: Tensor) -> Pixels:
    """What ``lcg edit`` writes of an image (1, 3, H, W) in [-1, 1]."""
    found: Pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return found


def png(picture: Pixels) -> bytes:
    """The content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


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


def downloads(picture: Pixels, latents: Tensor, name: str, **about: str) -> str:
    """HTML of two links that download a picture and its latents (N, ...), which are in the page already."""
    image = link(png(picture), "image/png")
    numbers = link(save({"latents": latents.cpu().contiguous()}, metadata=about), "application/octet-stream")
    return (
        f'<p class="downloads"><a download="{escape(name)}.png" href="{image}">Download the picture (PNG)</a> '
        f'<a download="{escape(name)}.safetensors" href="{numbers}">Download the latents (safetensors)</a></p>'
    )

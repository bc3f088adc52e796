"""``lcg edit``: edits images or stored latents by a sequence of conditions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track
from torch import Tensor

from lcg_lightning.commands.methods import DEFAULT_METHOD
from lcg_lightning.commands.output import check, write_images, write_latents
from lcg_lightning.conditions import merge, parse, to_text
from lcg_lightning.data.images import ImageFiles, find_images
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import figures
from lcg_lightning.files import atomic_folder
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.load import load_generator
from lcg_lightning.methods.base import Edit, Method, refuse_broken

SHOWN = 12
Sources = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Indices (B,) of sources -> their latents (B, *shape) and their image noise."""


def edit(
    conditions: list[str] | str,
    store: Path,
    out: Path,
    method: Method = DEFAULT_METHOD,  # type: ignore[assignment] # the parser instantiates it
    images: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    n: int | None = None,
    resize: bool = False,
    batch_size: int = 64,
    generator: str | dict[str, Any] = "synthfaces",
    device: str = "cpu",
) -> Path:
    """Edit images, or latents of a store, by one condition after another.

    Writes latents.safetensors (N, edits + 1, ...), images/ and strips.png, sources first.

    Args:
        conditions: one, or several such as '["Smiling", "~Eyeglasses", "age=60"]'; a later target for
            an attribute replaces the earlier one, all others stay.
        store: latent store that the method was trained on.
        out: output folder, which must be new or empty.
        method: class of a method, or a YAML file with its class_path and init_args; LatentClassifierGuidance by
            default. Its arguments follow as --method.prior FILE, --method.tau 1; --method.help CLASS lists them.
        images: folder or LMDB of images to edit; by default rows of the store are edited.
        split: split of the store to take rows from.
        n: number of images or rows, in order of name or row; by default all images, or 16 rows.
        resize: scale square images of another size.
        batch_size: latents edited at a time.
        generator: zoo name, generator file, YAML file (path and options, or class_path and init_args), or the content
            of one.
        device: device to compute on, such as cpu or cuda.
    """
    if not conditions:
        raise UserError("lcg edit: no conditions; give at least one")
    if n is not None and n < 1:
        raise UserError(f"lcg edit: n is {n}; edit at least one")
    check(out, batch_size, device)
    decoder = load_generator(generator).to(device)
    latents_store = LatentStore.open(store, decoder)
    space = latents_store.space(decoder)
    asked = [conditions] if isinstance(conditions, str) else conditions
    trees = [parse(text, latents_store.schema) for text in asked]
    edits = [Edit(tree, merge(trees[: k + 1])) for k, tree in enumerate(trees)]
    method.prepare(latents_store, space)
    method.to(device).eval()
    with atomic_folder(out) as part, torch.inference_mode():
        if images is None:
            rows = latents_store.split(split).latents[: n or 16]
            count, read = len(rows), _stored(decoder, rows, device)
        else:
            found = sorted(find_images(images, decoder.image_size).items())
            files = ImageFiles([image for _, image in found[:n]], decoder.image_size, resize=resize)
            count, read = len(files), _encoded(decoder, files, device)
        results: list[Tensor] = []
        pictures: list[list[Tensor]] = [[] for _ in range(len(trees) + 1)]
        for i in track(range(0, count, batch_size), description="Editing"):
            index = torch.arange(i, min(i + batch_size, count))
            w, noise = read(index)
            edited = method.edit(space.standardize(w), edits)
            refuse_broken(edited, index, method.name)
            states = [w, *map(space.unstandardize, edited)]
            results.append(torch.stack([s.cpu() for s in states], 1))
            for k, state in enumerate(states):
                drawn = decoder.decode(state, noise).cpu()
                write_images(part, drawn, i, f"-{k}")
                pictures[k].append(figures.shrink(drawn[: max(0, SHOWN - i)]))
        texts = [to_text(tree, latents_store.schema) for tree in trees]
        write_latents(part, torch.cat(results), conditions="; ".join(texts))
        strips = torch.stack([torch.cat(column) for column in pictures], 1)
        figures.strips([(strip, ["source", *texts]) for strip in strips], part / "strips.png")
    print(f"wrote {out}")
    return out


def _stored(generator: Generator, rows: Tensor, device: str) -> Sources:
    """Rows (N, *shape) of a store."""

    def read(index: Tensor) -> tuple[Tensor, Tensor | None]:
        w = rows[index].to(device)
        return w, generator.noise_of(0, index, w)

    return read


def _encoded(generator: Generator, files: ImageFiles, device: str) -> Sources:
    """Images; if the generator can invert, with the noise that decodes to them."""

    def read(index: Tensor) -> tuple[Tensor, Tensor | None]:
        images = torch.stack([files[k] for k in index.tolist()]).to(device)
        w = generator.encode(images)
        return w, generator.invert(images, w) if generator.can("invert") else generator.noise_of(0, index, w)

    return read

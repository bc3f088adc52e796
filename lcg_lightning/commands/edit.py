"""``lcg edit``: edits images or stored latents by a sequence of conditions."""

from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track
from torch import Tensor

from lcg_lightning.commands import methods  # noqa: F401 - the classes that --method can name
from lcg_lightning.commands.output import check, write_images, write_latents
from lcg_lightning.commands.sources import image_files, sampled, stored_rows
from lcg_lightning.conditions import merge, parse, to_text
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import figures
from lcg_lightning.evaluation.reading import find_reader
from lcg_lightning.evaluation.run_report import Readings, title, write_report
from lcg_lightning.files import atomic_folder
from lcg_lightning.generators.load import load_generator
from lcg_lightning.methods import DEFAULT_METHOD
from lcg_lightning.methods.base import Edit, Method, refuse_broken

SHOWN, TILES = 12, 240
"""Most strips, and images, in the picture."""


def edit(
    conditions: list[str] | str,
    store: Path,
    out: Path,
    method: Method = DEFAULT_METHOD,  # type: ignore[assignment] # the parser instantiates it
    rows: list[int] | None = None,
    split: Literal["train", "val", "test"] = "test",
    images: Path | None = None,
    sample_seed: int | None = None,
    n: int | None = None,
    resize: bool = False,
    batch_size: int = 64,
    generator: str | dict[str, Any] = "synthfaces",
    device: str = "cpu",
) -> Path:
    """Edit images, or latents of a store, by one condition after another.

    Edits the first rows of a split unless rows, images or sample_seed say otherwise; give one of them.
    Writes latents.safetensors (N, edits + 1, ...) and images/, sources first; strips.png with what was asked, how
    likely each image meets it and how like its source it is; and the same figures in report.json.

    Args:
        conditions: one, or several such as '["Smiling", "~Eyeglasses", "age=60"]'; a later target for
            an attribute replaces the earlier one, all others stay.
        store: latent store that the method was trained on.
        out: output folder, which must be new or empty.
        method: class of a method, or a YAML file with its class_path and init_args; LatentClassifierGuidance by
            default. Its arguments follow as --method.prior FILE, --method.tau 1; --method.help CLASS lists them.
        rows: numbers of the rows to edit, from 0, such as '[5, 17]'.
        split: split of the store to take rows from.
        images: image file, or folder or LMDB of images, to edit.
        sample_seed: edit faces that the generator samples with this seed; face i depends only on the seed and i.
        n: number of sources, in order of row or name; by default all images, or 16 rows or sampled faces.
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
    if rows == []:
        raise UserError("lcg edit: no rows; give at least one")
    origins = {"rows": rows, "images": images, "sample_seed": sample_seed, "n": n}
    given = [name for name, value in origins.items() if value is not None]
    if len(given) > 1 and given != ["images", "n"] and given != ["sample_seed", "n"]:
        raise UserError(f"lcg edit: {given[0]} and {given[1]} are both given; leave one of them out")
    check(out, batch_size, device, sample_seed)
    decoder = load_generator(generator).to(device)
    latents_store = LatentStore.open(store, decoder)
    space = latents_store.space(decoder)
    if images is not None:
        sources = image_files(decoder, images, n, resize, device)
    elif sample_seed is not None:
        sources = sampled(decoder, sample_seed, n, device)
    else:
        sources = stored_rows(decoder, latents_store, split, rows, n, device)
    asked = [conditions] if isinstance(conditions, str) else conditions
    trees = [parse(text, latents_store.schema) for text in asked]
    edits = [Edit(tree, merge(trees[: k + 1])) for k, tree in enumerate(trees)]
    method.prepare(latents_store, space)
    method.to(device).eval()
    reader = find_reader(generator, latents_store, space, method, device)
    readings = [Readings(reader, step.merged) for step in edits]
    with atomic_folder(out) as part, torch.inference_mode():
        shown = max(1, min(SHOWN, TILES // (len(trees) + 1)))
        results: list[Tensor] = []
        pictures: list[list[Tensor]] = [[] for _ in range(len(trees) + 1)]
        for i in track(range(0, sources.count, batch_size), description="Editing"):
            index = torch.arange(i, min(i + batch_size, sources.count))
            w, noise = sources.read(index)
            edited = method.edit(space.standardize(w), edits)
            refuse_broken(edited, index, method.name)
            states = [w, *map(space.unstandardize, edited)]
            results.append(torch.stack([s.cpu() for s in states], 1))
            for k, state in enumerate(states):
                drawn = decoder.decode(state, noise)
                if k == 0:
                    before = drawn
                else:
                    readings[k - 1].add(edited[k - 1], drawn, before)
                drawn = drawn.cpu()
                write_images(part, drawn, i, f"-{k}")
                pictures[k].append(figures.shrink(drawn[: max(0, shown - i)]))
        texts = [to_text(tree, latents_store.schema) for tree in trees]
        write_latents(part, torch.cat(results), conditions="; ".join(texts))
        strips = torch.stack([torch.cat(column) for column in pictures], 1)
        columns = [reading.notes(len(strips)) for reading in readings]
        notes = [["", *row] for row in zip(*columns, strict=True)]
        words = title(" → ".join(texts), method, [sources.words], readings[-1], latents_store, edits=True)
        figures.strips([(strip, ["source", *texts]) for strip in strips], part / "strips.png", notes, words)
        write_report(part, method, latents_store, readings, edits=True, sources=sources.words, edited=texts)
    print(f"wrote {out}")
    return out

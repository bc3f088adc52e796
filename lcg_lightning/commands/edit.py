"""``lcg edit``: one condition after another on images or stored latents."""

from pathlib import Path
from typing import Literal

import torch
from rich.progress import track

from lcg_lightning import figures
from lcg_lightning.commands.output import check_batches, folder, write_images, write_latents
from lcg_lightning.conditions import parse, to_text
from lcg_lightning.data.celebahq import ImageFiles, find_images
from lcg_lightning.data.store import LatentStore, unwhiten, whiten
from lcg_lightning.errors import UserError
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.zoo import load_generator
from lcg_lightning.methods.lcg import LatentClassifierGuidance

SHOWN = 12


def edit(
    conditions: list[str],
    store: Path,
    prior: Path,
    classifier: Path,
    out: Path,
    images: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    n: int | None = None,
    scale: float = 2.0,
    tau: float = 1.2,
    steps: int = 20,
    batch_size: int = 64,
    generator: str = "synthfaces",
    device: str = "cpu",
) -> Path:
    """Edit images, or latents of a store, by one condition after another.

    Writes latents.safetensors (N, edits + 1, ...), images/ and strips.png, sources first.

    Args:
        conditions: such as '["Smiling", "~Eyeglasses", "age=60"]'; each step keeps those before it.
        store: latent store the networks were trained on.
        prior: checkpoint of a LatentPrior.
        classifier: checkpoint of a LatentClassifier.
        out: folder to make.
        images: folder of image files to edit; by default rows of the store are edited.
        split: split of the store to take rows from.
        n: how many, in order of name or row; all images, or 16 rows, by default.
        scale: guidance scale.
        tau: how far an edit may go from its source, in standard deviations of whitened latents.
        steps: sampler steps.
        batch_size: latents edited at a time.
        generator: name of a generator in the zoo.
        device: where to compute, such as cpu or cuda.
    """
    if not conditions:
        raise UserError("lcg edit: no conditions; give at least one")
    if n is not None and n < 1:
        raise UserError(f"lcg edit: n is {n}; edit at least one")
    check_batches(batch_size, device)
    decoder = load_generator(generator).to(device)
    latents_store = LatentStore.open(store, decoder.fingerprint)
    trees = [parse(text, latents_store.schema) for text in conditions]
    method = LatentClassifierGuidance(prior, classifier, scale, tau=tau, steps=steps)
    method.prepare(latents_store)
    method.to(device)
    with folder(out) as part, torch.inference_mode():
        if images is not None:
            sources = _encode(images, n, decoder, device, batch_size)
        else:
            sources = latents_store.split(split).latents[: n or 16]
        if not len(sources):
            raise UserError(f"{images or store}: nothing to edit there")
        results, pictures = [], []
        for i in track(range(0, len(sources), batch_size), description="Editing"):
            w = sources[i : i + batch_size].to(device)
            z = whiten(w, latents_store.mean, latents_store.std)
            states = [w, *(unwhiten(e, latents_store.mean, latents_store.std) for e in method.edit(z, trees))]
            results.append(torch.stack([s.cpu() for s in states], 1))
            pictures.append(torch.stack([decoder.decode(s).cpu() for s in states], 1))
            for k in range(len(states)):
                write_images(part, pictures[-1][:, k], i, f"-{k}")
        texts = [to_text(tree, latents_store.schema) for tree in trees]
        write_latents(part, torch.cat(results), conditions="; ".join(texts))
        figures.strips([(p, ["source", *texts]) for p in torch.cat(pictures)[:SHOWN]], part / "strips.png")
    return out


def _encode(images: Path, n: int | None, generator: Generator, device: str, batch_size: int) -> torch.Tensor:
    files = ImageFiles([path for _, path in sorted(find_images(images).items())][:n], generator.image_size)
    parts = [range(i, min(i + batch_size, len(files))) for i in range(0, len(files), batch_size)]
    batches = (torch.stack([files[i] for i in part]) for part in track(parts, description="Encoding"))
    return torch.cat([generator.encode(batch.to(device)).cpu() for batch in batches] or [torch.zeros(0)])

"""``lcg sample``: samples images that satisfy a condition."""

from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from lcg_lightning.commands import methods  # noqa: F401 - the classes that --method can name
from lcg_lightning.commands.output import MOST, check, write_images, write_latents
from lcg_lightning.conditions import parse, to_text
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import figures
from lcg_lightning.evaluation.reading import find_reader
from lcg_lightning.evaluation.run_report import SAMPLES_SHOWN, Readings, draw_samples, write_report
from lcg_lightning.files import atomic_folder
from lcg_lightning.generators.load import load_generator
from lcg_lightning.methods import DEFAULT_METHOD
from lcg_lightning.methods.base import Method, refuse_broken


def sample(
    condition: str,
    store: Path,
    out: Path,
    method: Method = DEFAULT_METHOD,  # type: ignore[assignment] # the parser instantiates it
    n: int = 16,
    seed: int = 0,
    batch_size: int = 64,
    generator: str | dict[str, Any] = "synthfaces",
    device: str = "cpu",
) -> Path:
    """Sample images that satisfy a condition.

    Writes latents.safetensors, images/, grid.png with what was asked and how likely each image meets it, and the same
    figures in report.json.

    Args:
        condition: such as "Smiling & ~Eyeglasses & yaw=10"; "|" means or, and a factor as in "2*Smiling" scales a term.
        store: latent store that the method was trained on.
        out: output folder, which must be new or empty.
        method: class of a method, or a YAML file with its class_path and init_args; LatentClassifierGuidance by
            default. Its arguments follow as --method.prior FILE, --method.scale 2; --method.help CLASS lists them.
        n: number of images.
        seed: seed of the noise; image i depends only on the seed and i.
        batch_size: latents sampled at a time.
        generator: zoo name, generator file, YAML file (path and options, or class_path and init_args), or the content
            of one.
        device: device to compute on, such as cpu or cuda.
    """
    if not 1 <= n <= MOST:
        raise UserError(f"lcg sample: n is {n}; ask for at least one image and at most {MOST}")
    check(out, batch_size, device, seed)
    decoder = load_generator(generator).to(device)
    latents_store = LatentStore.open(store, decoder)
    space = latents_store.space(decoder)
    tree = parse(condition, latents_store.schema)
    method.prepare(latents_store, space)
    method.to(device).eval()
    readings = Readings(find_reader(generator, latents_store, space, method, device), tree)
    latents, images = [], []
    with atomic_folder(out) as part:
        for index in track(torch.split(torch.arange(n), batch_size), description="Sampling"):
            with torch.inference_mode():
                z = method.generate(tree, SampleNoise(seed, index, space.dim, device))
                refuse_broken([z], index, method.name)
                latents.append(space.unstandardize(z).cpu())
                drawn = space.decode_samples(z, seed, index)
                readings.add(z, drawn)
            drawn = drawn.cpu()
            write_images(part, drawn, int(index[0]))
            images.append(figures.shrink(drawn[: max(0, SAMPLES_SHOWN - int(index[0]))]))
        text, shown = to_text(tree, latents_store.schema), torch.cat(images)
        write_latents(part, torch.cat(latents), condition=text)
        draw_samples(shown, text, seed, method, readings, latents_store, part / "grid.png")
        write_report(part, method, latents_store, [readings], seed=seed, n=n)
    print(f"wrote {out}")
    return out

"""``lcg sample``: samples images that satisfy a condition."""

from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from lcg_lightning.commands.methods import DEFAULT_METHOD
from lcg_lightning.commands.output import MOST, check, write_images, write_latents
from lcg_lightning.conditions import parse, to_text
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import figures
from lcg_lightning.files import atomic_folder
from lcg_lightning.generators.load import load_generator
from lcg_lightning.methods.base import Method, refuse_broken

SHOWN = 32


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

    Writes latents.safetensors, images/ and grid.png.

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
    check(out, batch_size, device)
    decoder = load_generator(generator).to(device)
    latents_store = LatentStore.open(store, decoder)
    space = latents_store.space(decoder)
    tree = parse(condition, latents_store.schema)
    method.prepare(latents_store, space)
    method.to(device).eval()
    latents, images = [], []
    with atomic_folder(out) as part:
        for index in track(torch.split(torch.arange(n), batch_size), description="Sampling"):
            with torch.inference_mode():
                z = method.generate(tree, SampleNoise(seed, index, space.dim, device))
                refuse_broken([z], index, method.name)
                latents.append(space.unstandardize(z).cpu())
                drawn = space.decode_samples(z, seed, index).cpu()
            write_images(part, drawn, int(index[0]))
            images.append(figures.shrink(drawn[: max(0, SHOWN - int(index[0]))]))
        write_latents(part, torch.cat(latents), condition=to_text(tree, latents_store.schema))
        shown = torch.cat(images)
        figures.grid(shown, [""] * len(shown), 8, part / "grid.png")
    print(f"wrote {out}")
    return out

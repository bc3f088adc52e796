"""``lcg export-zoo``: trained recipes to shipped weights, each with a card of measured figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.metrics.accuracy import attribute_scores
from lcg_lightning.files import atomic
from lcg_lightning.formats import tensors
from lcg_lightning.generators.load import load_generator
from lcg_lightning.generators.stylegan2 import StyleGAN2Generator
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network
from lcg_lightning.recipes.zoo import (
    AttributeRecipe,
    GeneratorRecipe,
    IdentityRecipe,
    verification_accuracy,
)
from lcg_lightning.synthfaces.faces import (
    SCHEMA,
    Faces,
    faces_from_z,
    independent_faces,
    render,
    sample_z,
)
from lcg_lightning.zoo import shelf

HELD_OUT_SEED = 2**50
NAME = "synthfaces"


def export_zoo(
    attributes: Path = Path("runs/zoo/attributes/last.ckpt"),
    identity: Path = Path("runs/zoo/identity/last.ckpt"),
    generator: Path = Path("runs/zoo/generator/last.ckpt"),
    n: int = 2000,
) -> None:
    """Write the zoo's weights and cards from checkpoints of its recipes.

    Args:
        attributes: checkpoint of AttributeRecipe.
        identity: checkpoint of IdentityRecipe.
        generator: checkpoint of GeneratorRecipe.
        n: held-out renders that the cards' figures are measured on.
    """
    for path in (attributes, identity, generator):
        if not path.is_file():
            raise UserError(f"{path}: no such checkpoint; train it with lcg fit and its configuration in configs/zoo")
    judge = AttributeRecipe.load_from_checkpoint(attributes, map_location="cpu")
    _save(
        "attributes",
        {"network": judge.network},
        {"network": {"num_outputs": SCHEMA.num_outputs}, "attributes": SCHEMA.to_json()},
    )
    who = IdentityRecipe.load_from_checkpoint(identity, map_location="cpu")
    _save("identity", {"network": who.network}, {"network": {"num_outputs": who.network.num_outputs}})
    made = GeneratorRecipe.load_from_checkpoint(generator, map_location="cpu", factor_network=None)
    _save(
        "generator",
        {"network": made.generator_network, "encoder": made.encoder},
        {"kind": "stylegan2", "network": made.network_config, "encoder": made.encoder_config},
    )
    with torch.inference_mode():
        _cards(n)


def _save(part: str, networks: dict[str, nn.Module], config: dict[str, Any]) -> None:
    tensors.save(shelf.WEIGHTS / f"{NAME}-{part}.safetensors", networks, config, half=True)


def _cards(n: int) -> None:
    judge, who, generator = load_attribute_judge(NAME), load_identity_network(NAME), load_generator(NAME)
    assert isinstance(generator, StyleGAN2Generator)
    z = sample_z(n, HELD_OUT_SEED)
    faces = faces_from_z(z)
    images = render(faces)
    rebuilt = _batched(lambda x: generator.decode(generator.encode(x)), images)
    mapped = _batched(lambda x: generator.decode(generator.network.mapping(x)), z)
    others = independent_faces(sample_z(n, HELD_OUT_SEED + 1))
    again = render(Faces(faces.identity, others.scene, others.labels))
    e, e_rebuilt, e_again = (F.normalize(_batched(who.embed, x), dim=1) for x in (images, rebuilt, again))
    same, different = (e * e_again).sum(1), (e * e_again.roll(1, 0)).sum(1)

    def agreement(x: Tensor) -> dict[str, float]:
        scores = attribute_scores(SCHEMA.predict(_batched(judge, x)), faces.labels, SCHEMA).nanmean(0)
        return dict(zip(SCHEMA.names, scores[: len(SCHEMA)].tolist(), strict=True))

    def psnr(x: Tensor) -> float:
        return float((10 * torch.log10(4 / (x - images).square().mean((1, 2, 3)))).mean())

    _card(
        "attributes",
        AttributeRecipe,
        n,
        {f"accuracy on clean renders: {k}": v for k, v in agreement(images).items()},
    )
    _card(
        "identity",
        IdentityRecipe,
        n,
        {
            "verification accuracy, all attributes and the scene redrawn": float(
                verification_accuracy(same, different)
            ),
            "cosine of the same identity, all attributes and the scene redrawn": float(same.mean()),
            "cosine of different identities": float(different.mean()),
        },
    )
    _card(
        "generator",
        GeneratorRecipe,
        n,
        {f"judge agrees with the truth on reconstructions: {k}": v for k, v in agreement(rebuilt).items()}
        | {f"judge agrees with the truth on mapped z: {k}": v for k, v in agreement(mapped).items()}
        | {
            "identity cosine of image and reconstruction": float((e * e_rebuilt).sum(1).mean()),
            "identity cosine of image and another's reconstruction": float((e * e_rebuilt.roll(1, 0)).sum(1).mean()),
            "PSNR of reconstructions, dB": psnr(rebuilt),
            "PSNR of mapped z, dB": psnr(mapped),
        },
    )


def _batched(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 100) -> Tensor:
    return torch.cat([function(part) for part in torch.split(x, size)])


def _card(part: str, recipe: type, n: int, figures: dict[str, float]) -> None:
    name = f"{NAME}-{part}"
    parameters = sum(v.numel() for v in shelf.read(name)[0].values())
    lines = [
        f"# {name}",
        "",
        (recipe.__doc__ or "").split("\n\n")[0].strip(),
        "",
        f"{parameters:,} numbers, 64 x 64 pixels. Trained on SynthFaces renders by `{recipe.__name__}`,",
        f"`configs/zoo/{part}.yaml`. Use: research on controllable generation; it knows nothing of real faces.",
        "",
        f"Measured on {n} held-out renders from the joint distribution (accuracy of Age and Yaw: 1 - |error| / range).",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in figures.items()),
    ]
    with atomic(shelf.WEIGHTS / f"{name}.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    with atomic(shelf.WEIGHTS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"n": n, "figures": figures}, indent=2) + "\n")

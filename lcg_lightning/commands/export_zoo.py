"""``lcg export-zoo``: trained recipes to shipped weights, each with a card of measured figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lcg_lightning.conditions import targets
from lcg_lightning.data.images import in_bytes
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.tasks import Editing
from lcg_lightning.files import atomic, atomic_folder
from lcg_lightning.formats import tensors
from lcg_lightning.generators.exact import ExactWorld, factor_encoder
from lcg_lightning.generators.load import load_generator
from lcg_lightning.generators.stylegan2 import StyleGAN2Generator
from lcg_lightning.judges.load import zoo_network
from lcg_lightning.recipes.generator import GeneratorRecipe
from lcg_lightning.recipes.losses import laplacian_energy
from lcg_lightning.recipes.second_judges import SecondAttributeRecipe, SecondIdentityRecipe
from lcg_lightning.recipes.zoo import AttributeRecipe, IdentityRecipe, verification_accuracy
from lcg_lightning.synthfaces.faces import SCHEMA, Faces, faces_from_z, independent_faces, sample_z
from lcg_lightning.synthfaces.renderer import render

HELD_OUT_SEED = 2**50
EDITED = ("Eyeglasses", "Smiling", "Age", "Yaw")
SHOWN = 10


def export_zoo(
    out: Path = Path("runs/zoo/export"), runs: Path = Path("runs/zoo"), n: int = 1000, second: bool = True
) -> Path:
    """Write the zoo's weights and cards from checkpoints of its recipes.

    Args:
        out: folder to make; what ships is a copy of it in lcg_lightning/zoo/weights.
        runs: folder with a folder of each recipe's checkpoint: attributes, identity, finish, attributes-2,
            identity-2.
        n: held-out renders that the cards' figures are measured on.
        second: export the second judge and identity network too.

    Raises:
        UserError: a checkpoint is missing.
    """
    recipes: dict[str, tuple[str, Any]] = {
        "synthfaces-attributes": ("attributes", AttributeRecipe),
        "synthfaces-identity": ("identity", IdentityRecipe),
    }
    if second:
        recipes["synthfaces-2-attributes"] = ("attributes-2", SecondAttributeRecipe)
        recipes["synthfaces-2-identity"] = ("identity-2", SecondIdentityRecipe)
    for folder in (*(folder for folder, _ in recipes.values()), "finish"):
        if not (runs / folder / "last.ckpt").is_file():
            raise UserError(
                f"{runs / folder / 'last.ckpt'}: no such checkpoint; train it with lcg fit and its configuration in "
                "configs/zoo"
            )
    with atomic_folder(out) as part:
        for name, (folder, recipe) in recipes.items():
            network = recipe.load_from_checkpoint(runs / folder / "last.ckpt", map_location="cpu").network
            config: dict[str, Any] = {
                "architecture": type(network).__name__,
                "network": {"num_outputs": network.num_outputs},
            }
            if name.endswith("attributes"):
                config["attributes"] = SCHEMA.to_json()
            tensors.save(part / f"{name}.safetensors", {"network": network}, config, half=True)
        made = GeneratorRecipe.load_from_checkpoint(runs / "finish/last.ckpt", map_location="cpu")
        tensors.save(
            part / "synthfaces-generator.safetensors",
            {
                "network": made.average["generator_network"],
                "encoder": made.average["encoder"],
                "readout": made.readout,
            },
            {"kind": "stylegan2", "network": made.network_config, "encoder": made.encoder_config},
            half=True,
        )
        with torch.inference_mode():
            _Cards(part, n).write(["synthfaces", "synthfaces-2"] if second else ["synthfaces"])
    return out


def edited(faces: Faces) -> Faces:
    """The same faces with every attribute of :data:`EDITED` turned to its opposite, all else unchanged."""
    labels = faces.labels
    for step in Editing([*EDITED]).steps(faces.labels, torch.arange(len(faces)), SCHEMA):
        rows = targets(step, SCHEMA, len(faces))
        labels = torch.where(rows.isnan(), labels, rows)
    return Faces(faces.identity, faces.scene, labels)


class _Cards:
    """Measures exported networks on held-out renders."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.n = folder, n
        self.faces = faces_from_z(z := sample_z(n, HELD_OUT_SEED))
        self.asked = edited(self.faces)
        others = independent_faces(sample_z(n, HELD_OUT_SEED + 1))
        self.renders = render(self.faces)
        self.again = render(Faces(self.faces.identity, others.scene, others.labels))
        generator = load_generator(folder / "synthfaces-generator.safetensors")
        assert isinstance(generator, StyleGAN2Generator)
        self.generator = generator
        self.rebuilt = _batched(lambda x: generator.decode(generator.encode(x)), self.renders)
        self.mapped = _batched(lambda x: generator.decode(generator.network.mapping(x)), z)
        self.asked_renders = render(self.asked)
        self.oracle = _batched(lambda x: generator.decode(generator.encode(x)), self.asked_renders)

    def write(self, judges: list[str]) -> None:
        """A card beside each file, and the generator's picture."""
        generator: dict[str, float] = {}
        for kind, images in (("reconstructions", self.rebuilt), ("mapped z", self.mapped)):
            generator[f"PSNR of {kind}, dB"] = self._psnr(images)
            share = laplacian_energy(images).mean() / laplacian_energy(self.renders).mean()
            generator[f"Laplacian energy of {kind} relative to renders"] = float(share)
        for name in judges:
            by = f"by {name}: "
            attributes, _ = self._network(f"{name}-attributes")
            identity, _ = self._network(f"{name}-identity")
            self._write(
                f"{name}-attributes",
                {f"right on renders: {k}": v for k, v in self._right(attributes, self.renders).items()},
            )
            e, again = self._embed(identity, self.renders), self._embed(identity, self.again)
            same, other = (e * again).sum(1), (e * again.roll(1, 0)).sum(1)
            self._write(
                f"{name}-identity",
                {
                    "verification accuracy, all attributes and the scene redrawn": float(
                        verification_accuracy(same, other)
                    ),
                    "cosine of the same identity, all attributes and the scene redrawn": float(same.mean()),
                    "cosine of different identities": float(other.mean()),
                },
            )
            for kind, images in (("reconstructions", self.rebuilt), ("mapped z", self.mapped)):
                right = self._right(attributes, images)
                generator |= {f"{by}right on {kind}: {k}": v for k, v in right.items()}
                generator[f"{by}identity cosine of renders and {kind}"] = float(
                    (e * self._embed(identity, images)).sum(1).mean()
                )
            rebuilt, drawn = self._embed(identity, self.rebuilt), self._embed(identity, self.oracle)
            stranger = (e * rebuilt.roll(1, 0)).sum(1).mean()
            generator[f"{by}identity cosine of renders and others' reconstructions"] = float(stranger)
            columns = [SCHEMA.index(k) for k in EDITED]
            met = SCHEMA.met(SCHEMA.predict(_batched(attributes, self.oracle)), self.asked.labels)[:, columns]
            generator[f"{by}perfect edits of {', '.join(EDITED)}: all right"] = float(met.all(1).float().mean())
            for what, source in (("render", e), ("reconstruction", rebuilt)):
                same = (source * drawn).sum(1).mean()
                generator[f"{by}perfect edits: identity cosine with the source's {what}"] = float(same)
        generator |= self._exact()
        picture = self.folder / "synthfaces-generator.png"
        rows = (self.renders, self.rebuilt, self.mapped, self.asked_renders, self.oracle)
        montage(torch.cat([images[:SHOWN] for images in rows]), SHOWN, picture)
        rows_text = "renders; reconstructions; mapped z; renders of the perfect edits; those encoded and decoded"
        self._write("synthfaces-generator", generator, f"![From above: {rows_text}.]({picture.name})\n\n{rows_text}")

    def _exact(self) -> dict[str, float]:
        """What the exact world's encoder finds of the renders, read off its latents."""
        world = ExactWorld(encoder=factor_encoder(self.folder / "synthfaces-generator.safetensors"))
        found = world.faces(_batched(world.encode, self.renders))
        right = SCHEMA.met(found.labels, self.faces.labels).float().mean(0)
        where = "encoded into the exact world: "
        figures = {f"{where}right on renders: {k}": v for k, v in zip(SCHEMA.names, right.tolist(), strict=True)}
        error = (found.identity - self.faces.identity).abs().mean()
        return figures | {f"{where}mean error of the identity factors, uniform in [0, 1]": float(error)}

    def _network(self, name: str) -> tuple[nn.Module, dict[str, Any]]:
        network, config, _ = zoo_network(*tensors.read(self.folder / f"{name}.safetensors"))
        return network.eval(), config

    def _right(self, judge: nn.Module, images: Tensor) -> dict[str, float]:
        right = SCHEMA.met(SCHEMA.predict(_batched(judge, images)), self.faces.labels).float().mean(0)
        return dict(zip(SCHEMA.names, right.tolist(), strict=True))

    def _embed(self, network: nn.Module, images: Tensor) -> Tensor:
        return F.normalize(_batched(network, images), dim=1)

    def _psnr(self, images: Tensor) -> float:
        return float((10 * torch.log10(4 / (images - self.renders).square().mean((1, 2, 3)))).mean())

    def _write(self, name: str, figures: dict[str, float], picture: str = "") -> None:
        parameters = sum(v.numel() for v in tensors.read(self.folder / f"{name}.safetensors")[0].values())
        recipe = f"configs/zoo/{name.removeprefix('synthfaces-')}.yaml"
        if name.startswith("synthfaces-2-"):
            recipe = f"configs/zoo/{name.removeprefix('synthfaces-2-')}-2.yaml"
        lines = [
            f"# {name}",
            "",
            f"{parameters:,} numbers, 64 x 64 pixels. Trained on SynthFaces renders by `{recipe}`. Use: research on",
            "controllable generation; it knows nothing of real faces.",
            "",
            f"Measured on {self.n} held-out renders from the joint distribution. Age and Yaw are right within a tenth",
            "of their range.",
            "",
            "| figure | value |",
            "|---|---|",
            *(f"| {key} | {value:.4g} |" for key, value in figures.items()),
        ]
        if picture:
            lines += ["", picture]
        with atomic(self.folder / f"{name}.md") as temporary:
            temporary.write_text("\n".join(lines) + "\n")
        with atomic(self.folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps({"n": self.n, "figures": figures}, indent=2) + "\n")


def montage(images: Tensor, columns: int, path: Path, scale: int = 4) -> None:
    """Writes images (N, 3, H, W) in [-1, 1] as one picture, enlarged without smoothing."""
    pixels = in_bytes(images).permute(0, 2, 3, 1).cpu().numpy()
    rows = [np.concatenate(list(pixels[i : i + columns]), axis=1) for i in range(0, len(pixels), columns)]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    with atomic(path) as temporary:
        sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(temporary, "PNG")


def _batched(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 50) -> Tensor:
    return torch.cat([function(part) for part in torch.split(x, size)])

"""The oracle: what a method would answer that knows the truth of SynthFaces, and so the row that none can beat."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lcg_lightning.conditions import Condition, targets
from lcg_lightning.data.images import image_id
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.generators.conditional import draw_faces
from lcg_lightning.generators.exact import LATENT_DIM, ExactWorld
from lcg_lightning.methods.base import Edit, Method
from lcg_lightning.synthfaces.faces import SCHEMA, Z_DIM, Faces, faces_from_uniforms, faces_from_z
from lcg_lightning.synthfaces.renderer import render


class Oracle(Method):
    """Generation draws exact samples of the faces that show what is asked; an edit changes that and nothing else.

    In the exact world answers are computed. For any other generator of SynthFaces, one with an encoder, they are
    rendered and encoded: what is lost is what the generator cannot show.

    Args:
        faces: the folder that ``lcg render`` made, whose images the store's rows are; needed to edit with a generator
            that is not the exact world.
    """

    name = "oracle"
    ranked = False

    def __init__(self, faces: Path | None = None) -> None:
        super().__init__(faces=faces)
        self.folder = faces

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Reads the truth of the split's rows.

        Raises:
            UserError: the store is not of SynthFaces, or its generator cannot encode.
        """
        if store.schema != SCHEMA:
            raise UserError(f"method oracle: knows SynthFaces alone, and {store.path} has other attributes")
        self.space = space
        self.world = space.generator if isinstance(space.generator, ExactWorld) else None
        if self.world is None and not space.generator.can("encode"):
            raise UserError("method oracle: renders and encodes its answers, and this generator has no encoder")
        if self.world is None and self.folder is not None:
            rows = store.split(self.split)
            self.known = space.standardize(rows.latents)
            self.z = _read_faces(self.folder, rows.ids)

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) of faces drawn from the joint given the condition; a sample's draws belong to it alone.

        Raises:
            UserError: a sample that no attempt satisfies, or a continuous target under ~ or |.
        """
        noise = SampleNoise(noise.seed, noise.index, LATENT_DIM, noise.device)
        if self.world:
            answers, found = self.world.sample(condition, noise)
        else:
            _, answers, found = draw_faces(condition, noise)
        if not found.all():
            raise UserError(
                f"method oracle: no face drawn for sample {int(noise.index[~found.cpu()][0])} shows what is asked of "
                f"it ({int((~found).sum())} such samples); the condition is too rare"
            )
        return self.space.standardize(answers) if self.world else self._encode(faces_from_uniforms(answers))

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each step, every one made from the source.

        Raises:
            UserError: a condition that leaves a choice, or sources that are no rows of the store's split.
        """
        asked = [targets(step.merged, SCHEMA, len(source)).to(source) for step in steps]
        if self.world:
            w = self.space.unstandardize(source)
            return [self.space.standardize(self.world.counterfactual(w, rows)[0]).to(source) for rows in asked]
        faces = self._faces(source)
        answers = []
        for rows in asked:
            labels = torch.where(rows.isnan(), faces.labels, rows.to(faces.labels))
            answers.append(self._encode(Faces(faces.identity, faces.scene, labels)))
        return answers

    def _faces(self, source: Tensor) -> Faces:
        """The faces of source latents (B, D)."""
        if self.folder is None:
            raise UserError("method oracle: to edit it must know the faces; give the folder that lcg render made")
        exact = "donot_use_mm_for_euclid_dist"  # by matrix products, equal rows may be 0.01 apart
        nearest = torch.cdist(source.cpu().float(), self.known.float(), compute_mode=exact).min(1)
        if (nearest.values > 1e-2).any():
            raise UserError(f"method oracle: a source is none of the store's {self.split} rows; it knows no other face")
        return faces_from_z(self.z[nearest.indices].to(source.device))

    def _encode(self, faces: Faces) -> Tensor:
        return self.space.encode(render(faces, self.space.generator.image_size).float())


def _read_faces(folder: Path, ids: Sequence[str]) -> Tensor:
    """The z (B, Z_DIM) of faces in a folder of ``lcg render``, by the ids of their images."""
    file = folder / "faces.safetensors"
    try:
        z = load_file(file)["z"]
    except (OSError, SafetensorError, KeyError):
        raise UserError(f"{file} cannot be read as the faces of a data set; make it with lcg render") from None
    try:
        rows = [int(image_id(name)) for name in ids]
    except ValueError:
        raise UserError(f"{folder}: the store's rows are not those of this data set, but {ids[0]} and others") from None
    if z.shape[1:] != (Z_DIM,) or max(rows, default=-1) >= len(z):
        raise UserError(f"{folder}: the store's rows are not those of this data set; give the folder it was made from")
    return z[rows]

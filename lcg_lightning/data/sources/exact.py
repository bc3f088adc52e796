"""Latents of the exact world with their true labels."""

import torch

from lcg_lightning.data.annotated import AnnotatedLatents, DataSource
from lcg_lightning.data.sources.generated import MOST
from lcg_lightning.diffusion.noise import generator_of
from lcg_lightning.errors import UserError
from lcg_lightning.generators.exact import ExactWorld
from lcg_lightning.synthfaces.faces import SCHEMA, held_out


class ExactFaces(DataSource):
    """Latents that ``synthfaces-exact`` draws, with their true labels.

    Train and val show none of the combinations that :data:`~lcg_lightning.synthfaces.faces.HELD_OUT` names; test
    follows the whole joint distribution.

    Args:
        train: rows of the training split.
        val: rows of the validation split.
        test: rows of the test split.
        seed: of the draws.
    """

    def __init__(self, train: int = 20000, val: int = 1000, test: int = 2000, seed: int = 0) -> None:
        super().__init__(train=train, val=val, test=test, seed=seed)
        if min(train, val, test) < 0 or train < 1:
            raise UserError(f"ExactFaces: {train} train, {val} val, {test} test rows; ask for at least one to train on")
        if train + val + test > MOST:
            raise UserError(f"ExactFaces: {train + val + test} rows; ask for at most {MOST}")
        self.train, self.val, self.test, self.seed = train, val, test, seed

    def rows(self, world: ExactWorld) -> AnnotatedLatents:
        """Draws the rows."""
        draws, known = generator_of(self.seed), self.train + self.val
        latents = world.sample_latents(known, draws)
        while (bad := held_out(world.labels(latents))).any():
            latents[bad] = world.sample_latents(int(bad.sum()), draws)
        latents = torch.cat([latents, world.sample_latents(self.test, draws)])
        return AnnotatedLatents(
            [f"{i:06d}" for i in range(len(latents))],
            world.labels(latents),
            SCHEMA,
            ["train"] * self.train + ["val"] * self.val + ["test"] * self.test,
            latents=latents,
        )

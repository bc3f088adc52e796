"""The recipe of the generator's encoder alone, for a mapping that is there already."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.networks.stylegan2 import Mapping
from lcg_lightning.recipes.generator import readout_loss
from lcg_lightning.recipes.zoo import Recipe, factors
from lcg_lightning.synthfaces.faces import FACTORS, Z_DIM, faces_from_z, independent_faces
from lcg_lightning.synthfaces.renderer import render


class EncoderRecipe(Recipe):
    """Regresses w from the picture of a face: the mapping's w where z is known, the readout of its factors always.

    A fifth of the price of drawing pictures from w, so that it can see several times as many.

    Args:
        start: checkpoint of GeneratorRecipe, whose mapping and readout are kept as they are.
        batch_size: faces a step, a multiple of 4; a quarter has independent attributes and no z.
        lr: peak learning rate.
        readout: weight of the factors read out of w.
        mapping_layers: layers of the mapping.
        w_dim: width of W.
    """

    def __init__(
        self,
        start: Path | None = None,
        batch_size: int = 64,
        lr: float = 2e-3,
        readout: float = 0.1,
        mapping_layers: int = 4,
        w_dim: int = 128,
    ) -> None:
        super().__init__(batch_size, lr, weight_decay=1e-4)
        self.save_hyperparameters(ignore=["start"])
        self.encoder = ConvNet(w_dim, 256, (24, 48, 96, 192))
        self.mapping = Mapping(Z_DIM, 0, w_dim, mapping_layers, 1.0).requires_grad_(False)
        self.readout = nn.Linear(w_dim, FACTORS).requires_grad_(False)
        self.start = start
        self.to(memory_format=torch.channels_last)

    def on_fit_start(self) -> None:
        """Takes mapping and readout from the generator."""
        if self.start is None:
            raise UserError("EncoderRecipe: give start, a checkpoint of GeneratorRecipe, to train for")
        state: dict[str, Any] = torch.load(self.start, map_location=self.device, weights_only=True)["state_dict"]
        for network, prefix in ((self.mapping, "average.generator_network.mapping."), (self.readout, "readout.")):
            network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def training_step(self, seed: int) -> Tensor:
        """Distance to the mapping's w, and readout loss, of one batch."""
        known = 3 * self.batch_size // 4
        z = self.gaussian(self.generator(seed))
        faces = [faces_from_z(z[:known]), independent_faces(z[known:])]
        images = torch.cat([render(part) for part in faces]).contiguous(memory_format=torch.channels_last)
        encoded = self.encoder(images).float()
        alignment = F.mse_loss(encoded[:known], self.mapping(z[:known]).float())
        readout = readout_loss(self.readout(encoded).float(), torch.cat([factors(part) for part in faces]))
        self.log_dict({"train/alignment": alignment, "train/readout": readout}, batch_size=self.batch_size)
        return alignment + float(self.hparams["readout"]) * readout

    def validation_step(self, seed: int) -> None:
        """Share of w's variance that the encoder leaves unexplained."""
        z = self.gaussian(self.generator(seed))
        w = self.mapping(z).float()
        error = (self.encoder(render(faces_from_z(z))).float() - w).square().mean()
        self.log("val/unexplained", error / w.var(0).mean(), prog_bar=True, batch_size=self.batch_size)

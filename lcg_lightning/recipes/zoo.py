"""Recipes of the zoo: every shipped network is trained by one of these modules, run by ``lcg fit``.

All of them draw SynthFaces as they go: no image is seen twice. Configurations are in ``configs/zoo/``.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset

from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.networks.dilated import DilatedNet
from lcg_lightning.synthfaces.faces import (
    FACTORS,
    IDENTITY_DIM,
    SCENE_DIM,
    SCHEMA,
    Z_DIM,
    Faces,
    faces_from_z,
    independent_faces,
)
from lcg_lightning.synthfaces.renderer import render

VALIDATION_SEED = 2**40


class Seeds(IterableDataset[int]):
    """The numbers first, first + 1, ...: one seed a batch."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.first, self.count = first, count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + self.count))

    def __len__(self) -> int:
        return self.count


class RenderedFaces(LightningDataModule):
    """Seeds from which each module draws and renders its batch, so that a batch depends on nothing but its number.

    Args:
        steps_per_epoch: batches between two validations.
        validation_steps: batches of a validation; always the same ones.
        seed: distinguishes runs.
    """

    def __init__(self, steps_per_epoch: int = 250, validation_steps: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.steps_per_epoch, self.validation_steps, self.seed = steps_per_epoch, validation_steps, seed

    def train_dataloader(self) -> DataLoader[int]:
        """Seeds of the current epoch; needs ``reload_dataloaders_every_n_epochs: 1``."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        first = (self.seed + 1) * 2**24 + epoch * self.steps_per_epoch
        return DataLoader(Seeds(first, self.steps_per_epoch), batch_size=None)

    def val_dataloader(self) -> DataLoader[int]:
        """The validation seeds."""
        return DataLoader(Seeds(VALIDATION_SEED, self.validation_steps), batch_size=None)


class Recipe(LightningModule):
    """What the recipes share: AdamW with a short warm-up and a cosine decay to zero over the whole run."""

    def __init__(self, batch_size: int, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.batch_size, self.lr, self.weight_decay = batch_size, lr, weight_decay

    def generator(self, seed: int) -> torch.Generator:
        """The random numbers of one batch."""
        return torch.Generator().manual_seed(int(seed))

    def gaussian(self, generator: torch.Generator) -> Tensor:
        """The z (B, Z_DIM) of one batch of faces, on the module's device."""
        return torch.randn(self.batch_size, Z_DIM, generator=generator).to(self.device)

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, over the trainer's whole number of steps."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay, betas=(0.9, 0.99))
        total = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            return min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * min(step / total, 1.0)))

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blurs a third of the images (B, 3, H, W) and adds up to 0.1 of noise, as generated images may show."""
    b = len(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pick = (torch.rand(b, 1, 1, 1, generator=generator) < 1 / 3).to(images)
    images = torch.lerp(images, blurred, pick)
    strength = 0.1 * torch.rand(b, 1, 1, 1, generator=generator)
    return images + (strength * torch.randn(images.shape, generator=generator)).to(images)


def factors(faces: Faces) -> Tensor:
    """All that is drawn of a face, (B, FACTORS), in [0, 1]."""
    return torch.cat([faces.identity, faces.scene, SCHEMA.unit(faces.labels)], dim=1)


class FactorNetwork(Recipe):
    """Regresses every factor of a face; its feature maps are the generator's perceptual loss. Not shipped."""

    def __init__(self, batch_size: int = 64, lr: float = 2e-3) -> None:
        super().__init__(batch_size, lr, weight_decay=1e-4)
        self.save_hyperparameters()
        self.network = ConvNet(FACTORS)

    def training_step(self, seed: int) -> Tensor:
        """One batch of faces with independent attributes."""
        generator = self.generator(seed)
        faces = independent_faces(self.gaussian(generator))
        loss = F.mse_loss(self.network(degrade(render(faces), generator)).float(), factors(faces))
        self.log("train/loss", loss, prog_bar=True, batch_size=self.batch_size)
        return loss

    def validation_step(self, seed: int) -> None:
        """Error on clean renders from the joint distribution."""
        faces = faces_from_z(self.gaussian(self.generator(seed)))
        error = (self.network(render(faces)) - factors(faces)).abs()
        self.log("val/mae_identity", error[:, :IDENTITY_DIM].mean(), prog_bar=True, batch_size=self.batch_size)
        self.log("val/mae_labels", error[:, IDENTITY_DIM + SCENE_DIM :].mean(), batch_size=self.batch_size)


class AttributeRecipe(Recipe):
    """The attribute classifier on images: binary heads and, for age and yaw, regression in unit scale."""

    def __init__(self, batch_size: int = 64, lr: float = 2e-3) -> None:
        super().__init__(batch_size, lr, weight_decay=1e-4)
        self.save_hyperparameters()
        self.network: ConvNet | DilatedNet = ConvNet(SCHEMA.num_outputs)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Of a training batch."""
        return degrade(images, generator)

    def training_step(self, seed: int) -> Tensor:
        """Cross entropy and Gaussian negative log-likelihood, on faces with independent attributes."""
        generator = self.generator(seed)
        faces = independent_faces(self.gaussian(generator))
        outputs = self.network(self.augment(render(faces), generator)).float()
        truth = SCHEMA.unit(faces.labels)
        loss: Tensor = outputs.new_zeros(())
        for i, attribute in enumerate(SCHEMA):
            out = outputs[:, SCHEMA.head(attribute.name)]
            if attribute.kind == "binary":
                loss = loss + F.binary_cross_entropy_with_logits(out[:, 0], truth[:, i])
            else:
                variance = out[:, 1].clamp(-10, 4).exp()
                loss = loss + 0.2 * F.gaussian_nll_loss(out[:, 0], truth[:, i], variance, eps=1e-5)
                loss = loss + 5.0 * F.mse_loss(out[:, 0], truth[:, i])
        self.log("train/loss", loss, prog_bar=True, batch_size=self.batch_size)
        return loss

    def validation_step(self, seed: int) -> None:
        """Accuracy per attribute on clean renders from the joint; 1 - |error| in unit scale for age and yaw."""
        faces = faces_from_z(self.gaussian(self.generator(seed)))
        predicted = SCHEMA.predict(self.network(render(faces)).float())
        right = 1.0 - (SCHEMA.unit(predicted) - SCHEMA.unit(faces.labels)).abs()
        for i, name in enumerate(SCHEMA.names):
            self.log(f"val/acc/{name}", right[:, i].mean(), batch_size=self.batch_size)
        self.log("val/acc", right.mean(), prog_bar=True, batch_size=self.batch_size)


def verification_accuracy(same: Tensor, other: Tensor) -> Tensor:
    """Share of pairs told apart at the best threshold on their cosines, same identity (N,) and other (M,) alike."""
    cut = torch.cat([same, other])[:, None]
    return ((same > cut).float().mean(1) + (other <= cut).float().mean(1)).max() / 2


class IdentityRecipe(Recipe):
    """The identity network: renders that share identity factors attract, all others repel.

    Every identity of a batch is drawn twice, with other attributes and another scene; the loss is the normalised
    temperature-scaled cross entropy of Chen et al. (arXiv 2002.05709).
    """

    def __init__(self, batch_size: int = 64, lr: float = 2e-3, embedding: int = 64, temperature: float = 0.1) -> None:
        super().__init__(batch_size, lr, weight_decay=1e-4)
        self.save_hyperparameters()
        self.temperature = temperature
        self.network: ConvNet | DilatedNet = ConvNet(embedding)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Of a training batch."""
        return degrade(images, generator)

    def pair(self, seed: int) -> tuple[Tensor, Tensor]:
        """Two renders (B, 3, H, W) each of B identities."""
        generator = self.generator(seed)
        a, b = (independent_faces(self.gaussian(generator)) for _ in range(2))
        b = Faces(a.identity, b.scene, b.labels)
        return self.augment(render(a), generator), self.augment(render(b), generator)

    def training_step(self, seed: int) -> Tensor:
        """Contrastive loss over 2 B renders."""
        e = F.normalize(self.network(torch.cat(self.pair(seed))).float(), dim=1)
        logits = (e @ e.t()) / self.temperature
        logits = logits.masked_fill(torch.eye(len(e), dtype=torch.bool, device=e.device), -1e9)
        partner = torch.arange(len(e), device=e.device).roll(len(e) // 2)
        loss = F.cross_entropy(logits, partner)
        self.log("train/loss", loss, prog_bar=True, batch_size=self.batch_size)
        return loss

    def validation_step(self, seed: int) -> None:
        """Verification accuracy at the best threshold: same identity or not, attributes and scene changed."""
        a, b = (F.normalize(self.network(images).float(), dim=1) for images in self.pair(seed))
        same, other = (a * b).sum(1), (a * b.roll(1, 0)).sum(1)
        self.log("val/verification", verification_accuracy(same, other), prog_bar=True, batch_size=self.batch_size)
        self.log("val/same", same.mean(), batch_size=self.batch_size)
        self.log("val/other", other.mean(), batch_size=self.batch_size)

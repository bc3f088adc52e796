"""Recipes of the zoo: every shipped network is trained by one of these modules, run by ``lcg fit``.

All of them draw SynthFaces as they go: no image is seen twice. Configurations are in ``configs/zoo/``.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset

from lcg_lightning.errors import UserError
from lcg_lightning.networks.convnet import ConvNet, perceptual_distance
from lcg_lightning.networks.stylegan2 import StyleGAN2
from lcg_lightning.synthfaces.faces import (
    IDENTITY_DIM,
    IMAGE_SIZE,
    SCENE_DIM,
    SCHEMA,
    Z_DIM,
    Faces,
    faces_from_z,
    independent_faces,
    render,
)

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
    """All that is drawn of a face, (B, 29), in [0, 1]."""
    return torch.cat([faces.identity, faces.scene, SCHEMA.unit(faces.labels)], dim=1)


class FactorNetwork(Recipe):
    """Regresses every factor of a face; its feature maps are the generator's perceptual loss. Not shipped."""

    def __init__(self, batch_size: int = 64, lr: float = 2e-3) -> None:
        super().__init__(batch_size, lr, weight_decay=1e-4)
        self.save_hyperparameters()
        self.network = ConvNet(Z_DIM)

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
        self.network = ConvNet(SCHEMA.num_outputs)

    def training_step(self, seed: int) -> Tensor:
        """Cross entropy and Gaussian negative log-likelihood, on faces with independent attributes."""
        generator = self.generator(seed)
        faces = independent_faces(self.gaussian(generator))
        outputs = self.network(degrade(render(faces), generator)).float()
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
        self.network = ConvNet(embedding)

    def pair(self, seed: int) -> tuple[Tensor, Tensor]:
        """Two renders (B, 3, H, W) each of B identities."""
        generator = self.generator(seed)
        a, b = (independent_faces(self.gaussian(generator)) for _ in range(2))
        b = Faces(a.identity, b.scene, b.labels)
        return degrade(render(a), generator), degrade(render(b), generator)

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


class GeneratorRecipe(Recipe):
    """The generator and its encoder into W, trained together by regression on what the renderer knows.

    Of every batch, one half goes z -> mapping -> w -> image and the other image -> encoder -> w -> image. The encoder
    also regresses the mapping's w of all faces whose z is known. A quarter of the faces has independent attributes
    and so no z: W reaches beyond the joint distribution.

    Args:
        factor_network: checkpoint of :class:`FactorNetwork`, the perceptual loss.
        batch_size: faces a step, a multiple of 4.
        lr: peak learning rate.
        w_dim: width of W.
        channel_base: channels times resolution of the synthesis network.
        channel_max: most channels.
        inner_face: weight of the pixels between brows and chin.
        perceptual: weight of the perceptual loss.
        alignment: weight of the encoder's regression of w.
        compile: fuse the element-wise work with torch.compile; needs a C++ compiler, and minutes to start.
    """

    inner: Tensor

    def __init__(
        self,
        factor_network: Path | None = None,
        batch_size: int = 32,
        lr: float = 2e-3,
        w_dim: int = 64,
        channel_base: int = 1536,
        channel_max: int = 128,
        inner_face: float = 3.0,
        perceptual: float = 0.5,
        alignment: float = 0.1,
        compile: bool = False,
    ) -> None:
        super().__init__(batch_size, lr)
        self.save_hyperparameters(ignore=["factor_network"])
        self.w = dict(perceptual=perceptual, alignment=alignment)
        self.encoder_config: dict[str, Any] = {"num_outputs": w_dim, "num_features": 256, "widths": (24, 48, 96, 192)}
        self.network_config: dict[str, Any] = {
            "z_dim": Z_DIM,
            "w_dim": w_dim,
            "img_resolution": IMAGE_SIZE,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "mapping_layers": 4,
            "mapping_lr_multiplier": 0.3,
        }
        self.encoder = ConvNet(**self.encoder_config)
        self.generator_network = StyleGAN2(**self.network_config)
        weights = torch.ones(64, 64)
        weights[18:58, 12:52] = inner_face
        self.register_buffer("inner", weights / weights.mean(), persistent=False)
        self.to(memory_format=torch.channels_last)
        self.factor_network = factor_network
        self.fuse: Callable[[Any], Any] = torch.compile if compile else lambda function: function
        self.draw, self.encode = self.fuse(self.generator_network.draw), self.fuse(self.encoder.forward)

    def on_fit_start(self) -> None:
        """Loads the perceptual network; it stays out of the module and so out of its checkpoints."""
        if self.factor_network is None:
            raise UserError("GeneratorRecipe: give factor_network, a checkpoint of FactorNetwork, to train with")
        critic = FactorNetwork.load_from_checkpoint(self.factor_network, map_location=self.device).network
        critic.eval().requires_grad_(False)
        self.distance = self.fuse(partial(perceptual_distance, critic))

    def training_step(self, seed: int) -> Tensor:
        """Reconstruction, perceptual and alignment losses of one batch."""
        quarter = self.batch_size // 4
        z, other = torch.split(self.gaussian(self.generator(seed)), [3 * quarter, self.batch_size - 3 * quarter])
        known, free = render(faces_from_z(z)), render(independent_faces(other))
        images = torch.cat([known, free]).contiguous(memory_format=torch.channels_last)
        mapped, encoded = self.generator_network.mapping(z), self.encode(images)
        out = self.draw(torch.cat([mapped[: 2 * quarter], encoded[2 * quarter :]])).float()
        with torch.no_grad():
            average = self.generator_network.mapping.w_avg
            average.lerp_(mapped.detach().float().mean(0), 0.005)
        error = out - images
        pixels = ((error.abs() + error.square()) * self.inner).mean()
        align = F.mse_loss(encoded[: 3 * quarter].float(), mapped.detach().float())
        features = self.distance(out, images)
        loss: Tensor = pixels + self.w["perceptual"] * features + self.w["alignment"] * align
        names = ("pixels", "features", "align")
        self.log_dict(
            {f"train/{k}": v for k, v in zip(names, (pixels, features, align), strict=True)},
            prog_bar=True,
            batch_size=self.batch_size,
        )
        return loss

    def validation_step(self, seed: int) -> None:
        """Peak signal-to-noise ratio of reconstructions and of mapped z, on faces from the joint."""
        z = self.gaussian(self.generator(seed))
        images = render(faces_from_z(z))
        for name, w in (("mapped", self.generator_network.mapping(z)), ("encoded", self.encoder(images))):
            error = (self.generator_network.draw(w).float().clamp(-1, 1) - images).square().mean((1, 2, 3))
            self.log(f"val/psnr_{name}", (10 * torch.log10(4 / error)).mean(), prog_bar=True, batch_size=len(z))

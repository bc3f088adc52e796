"""The recipe of the zoo's generator: a StyleGAN2 of SynthFaces and its encoder into W."""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from lcg_lightning.errors import UserError
from lcg_lightning.networks.convnet import ConvNet
from lcg_lightning.networks.stylegan2 import Mapping, StyleGAN2
from lcg_lightning.recipes.losses import PatchDiscriminator, feature_distance, gradient_distance, laplacian_energy
from lcg_lightning.recipes.zoo import FactorNetwork, factors
from lcg_lightning.synthfaces.faces import (
    FACTORS,
    IDENTITY_DIM,
    SCENE_DIM,
    SCHEMA,
    Z_DIM,
    faces_from_z,
    independent_faces,
)
from lcg_lightning.synthfaces.renderer import IMAGE_SIZE, render

BINARY = slice(IDENTITY_DIM + SCENE_DIM, IDENTITY_DIM + SCENE_DIM + sum(a.kind == "binary" for a in SCHEMA))
"""The columns of :func:`factors` that are 0 or 1."""


def readout_loss(outputs: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy of the binary factors (B, 24) and squared error of the others."""
    binary = F.binary_cross_entropy_with_logits(outputs[:, BINARY], truth[:, BINARY])
    error = (outputs - truth).square()
    return binary + 5.0 * torch.cat([error[:, : BINARY.start], error[:, BINARY.stop :]], dim=1).mean()


def steady_then_decay(step: int, total: int, decay: float) -> float:
    """Factor of the learning rate: a short warm-up, one, and over the last share ``decay`` a half cosine to zero."""
    left = (total - step) / max(1.0, decay * total)
    return min((step + 1) / 200, 1.0) * (0.5 - 0.5 * math.cos(math.pi * min(max(left, 0.0), 1.0)))


class MappingRecipe(LightningModule):
    """The generator's mapping alone: z to a w from which a linear readout tells every factor of the face.

    It costs minutes where the images cost hours, and afterwards the attributes' steps in z are sharp.
    """

    def __init__(
        self, batch_size: int = 1024, lr: float = 3e-3, w_dim: int = 128, layers: int = 4, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size, self.lr = batch_size, lr
        self.mapping = Mapping(Z_DIM, 0, w_dim, layers, lr_multiplier)
        self.readout = nn.Linear(w_dim, FACTORS)

    def _batch(self, seed: int) -> tuple[Tensor, Tensor]:
        z = torch.randn(self.batch_size, Z_DIM, generator=torch.Generator().manual_seed(int(seed))).to(self.device)
        return self.readout(self.mapping(z)).float(), factors(faces_from_z(z))

    def training_step(self, seed: int) -> Tensor:
        """Readout loss of one batch."""
        loss = readout_loss(*self._batch(seed))
        self.log("train/loss", loss, prog_bar=True, batch_size=self.batch_size)
        return loss

    def validation_step(self, seed: int) -> None:
        """Accuracy of the binary factors, mean absolute error of the others."""
        outputs, truth = self._batch(seed)
        right = (outputs[:, BINARY] > 0) == (truth[:, BINARY] > 0.5)
        error = (outputs - truth).abs()
        other = torch.cat([error[:, : BINARY.start], error[:, BINARY.stop :]], dim=1)
        self.log("val/accuracy", right.float().mean(), prog_bar=True, batch_size=self.batch_size)
        self.log("val/mae", other.mean(), prog_bar=True, batch_size=self.batch_size)

    def configure_optimizers(self) -> Any:
        """Adam, decaying over the last three quarters."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, betas=(0.9, 0.99))
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: steady_then_decay(step, total, 0.75))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class GeneratorRecipe(LightningModule):
    """The generator and its encoder into W, trained together by regression on what the renderer knows.

    Of every batch, one half goes z -> mapping -> w -> image and the other image -> encoder -> w -> image. The encoder
    also regresses the mapping's w of all faces whose z is known, and a linear readout of every w tells all factors
    of its face. A quarter of the faces has independent attributes and so no z: W reaches beyond the joint
    distribution. The first steps, most of them, do without the encoder and cost half. What ships is an exponential
    average of the weights.

    Args:
        factor_network: checkpoint of :class:`FactorNetwork`, the perceptual loss.
        mapping: checkpoint of :class:`MappingRecipe`, from which mapping and readout start.
        start: checkpoint of this recipe, of the same networks, whose averaged generator to start from instead.
        encoder: checkpoint of :class:`~lcg_lightning.recipes.encoder.EncoderRecipe` to go with it.
        batch_size: faces a step, a multiple of 4.
        lr: learning rate.
        synthesis_rate: learning rate of the synthesis network relative to the rest, its weights being at unit scale.
        decay: share of the steps, at the end, over which the learning rate falls to zero.
        averaging: steps that the average of the weights reaches back, at most a tenth of those done.
        w_dim: width of W.
        channel_base: channels times resolution of the synthesis network.
        channel_max: most channels.
        mapping_layers: layers of the mapping.
        mapping_lr_multiplier: learning rate of the mapping relative to the rest.
        grow_steps: steps of 32 x 32 pixels to begin with.
        inner_face: weight of the pixels between brows and chin.
        gradient: weight of the image gradients' distance.
        perceptual: weight of :func:`~lcg_lightning.recipes.losses.feature_distance`; 0 does without it.
        encode: train the encoder, and draw half of the faces from its w; else all from the mapping's.
        alignment: weight of the encoder's regression of w.
        readout: weight of the factors read out of w.
        adversarial: weight of the discriminator's verdict; 0 trains without one.
        r1: weight of the gradient penalty on the discriminator, applied every 16 steps.
        compile: fuse the element-wise work with torch.compile; needs a C++ compiler, and minutes to start.
    """

    inner: Tensor

    def __init__(
        self,
        factor_network: Path | None = None,
        mapping: Path | None = None,
        start: Path | None = None,
        encoder: Path | None = None,
        batch_size: int = 32,
        lr: float = 2e-3,
        synthesis_rate: float = 4.0,
        decay: float = 0.2,
        averaging: int = 1000,
        w_dim: int = 128,
        channel_base: int = 1536,
        channel_max: int = 160,
        mapping_layers: int = 4,
        mapping_lr_multiplier: float = 1.0,
        grow_steps: int = 0,
        inner_face: float = 2.0,
        gradient: float = 1.0,
        perceptual: float = 0.2,
        encode: bool = True,
        alignment: float = 0.2,
        readout: float = 0.1,
        adversarial: float = 0.0,
        r1: float = 5.0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["factor_network", "mapping", "start", "encoder"])
        self.automatic_optimization = False
        self.encoder_config: dict[str, Any] = {"num_outputs": w_dim, "num_features": 256, "widths": (24, 48, 96, 192)}
        self.network_config: dict[str, Any] = {
            "z_dim": Z_DIM,
            "w_dim": w_dim,
            "img_resolution": IMAGE_SIZE,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "mapping_layers": mapping_layers,
            "mapping_lr_multiplier": mapping_lr_multiplier,
        }
        self.encoder = ConvNet(**self.encoder_config)
        self.generator_network = StyleGAN2(**self.network_config)
        self.readout = nn.Linear(w_dim, FACTORS)
        self.discriminator = PatchDiscriminator()
        self.average = nn.ModuleDict({"encoder": self.encoder, "generator_network": self.generator_network})
        self.average = copy.deepcopy(self.average).requires_grad_(False)
        weights = torch.ones(IMAGE_SIZE, IMAGE_SIZE)
        weights[18:58, 12:52] = inner_face
        self.register_buffer("inner", weights / weights.mean(), persistent=False)
        self.to(memory_format=torch.channels_last)
        self.factor_network, self.mapping_start = factor_network, mapping
        self.start, self.encoder_start = start, encoder
        fuse: Callable[[Any], Any] = torch.compile if compile else lambda function: function
        self.fuse = fuse
        self.draw, self.encode = fuse(self.generator_network.draw), fuse(self.encoder.forward)
        self.draw_small = fuse(partial(draw_small, self.generator_network))

    def configure_optimizers(self) -> Any:
        """Adam for the generator, its encoder and the readout, and one for the discriminator."""
        rate = float(self.hparams["lr"])
        other = [*self.generator_network.mapping.parameters(), *self.encoder.parameters(), *self.readout.parameters()]
        groups = [
            {"params": [*self.generator_network.synthesis.parameters()], "peak": rate * self.hparams["synthesis_rate"]},
            {"params": other, "peak": rate},
        ]
        generator = torch.optim.Adam(groups, lr=rate, betas=(0.9, 0.99), foreach=True)
        critics = [{"params": [*self.discriminator.parameters()], "peak": rate}]
        critic = torch.optim.Adam(critics, lr=rate, betas=(0.0, 0.99))
        return [generator, critic]

    def on_fit_start(self) -> None:
        """Loads the perceptual network, which stays out of the module, and on a fresh start the mapping."""
        if self.factor_network is None:
            raise UserError("GeneratorRecipe: give factor_network, a checkpoint of FactorNetwork, to train with")
        critic = FactorNetwork.load_from_checkpoint(self.factor_network, map_location=self.device).network
        critic.eval().requires_grad_(False)
        self.distance = self.fuse(partial(feature_distance, critic))
        if self.start is not None and self.trainer.global_step == 0:
            self._take(self.start, {"average.generator_network": "generator_network", "readout": "readout"})
            if self.encoder_start is not None:
                self._take(self.encoder_start, {"encoder": "encoder"})
        elif self.mapping_start is not None and self.trainer.global_step == 0:
            start = MappingRecipe.load_from_checkpoint(self.mapping_start, map_location=self.device)
            self.generator_network.mapping.load_state_dict(start.mapping.state_dict())
            self.readout.load_state_dict(start.readout.state_dict())

    def _take(self, path: Path, parts: dict[str, str]) -> None:
        """Loads parts of another run: its state-dict prefix to the name of the network here, and of its average."""
        state = torch.load(path, map_location=self.device, weights_only=True)["state_dict"]
        for source, name in parts.items():
            own = {k.removeprefix(f"{source}."): v for k, v in state.items() if k.startswith(f"{source}.")}
            getattr(self, name).load_state_dict(own)
            if name in self.average:
                self.average[name].load_state_dict(own)

    def training_step(self, seed: int, batch_idx: int) -> None:
        """One step of the generator and, where it is used, one of the discriminator."""
        step = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        total = (self.trainer.max_epochs or 1) * int(self.trainer.num_training_batches)
        rate = steady_then_decay(step, total, self.hparams["decay"])
        optimizer, critic_optimizer = cast(list[LightningOptimizer], self.optimizers())
        for group in [*optimizer.param_groups, *critic_optimizer.param_groups]:
            group["lr"] = rate * group["peak"]
        small = step < self.hparams["grow_steps"]
        loss, images, out = self._generator_loss(seed, small)
        adversarial = 0.0 if small else self.hparams["adversarial"]
        if adversarial:
            self.discriminator.requires_grad_(False)
            loss = loss + adversarial * F.softplus(-self.discriminator(out)).mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer.optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        if adversarial:
            self.discriminator.requires_grad_(True)
            critic_loss = self.discriminator.loss(images, out)
            if batch_idx % 16 == 0:
                with torch.autocast(self.device.type, enabled=False):
                    critic_loss = critic_loss + 16 * 0.5 * self.hparams["r1"] * self.discriminator.r1(images)
            critic_optimizer.zero_grad()
            self.manual_backward(critic_loss)
            critic_optimizer.step()
            self.log("train/critic", critic_loss, batch_size=len(images))
        self._update_average(step)

    def _generator_loss(self, seed: int, small: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of one batch, its renders (B, 3, H, W) and what the network makes of them."""
        n, free = int(self.hparams["batch_size"]), 0
        drawn = n  # faces drawn from the mapping's w; the others from the encoder's
        if self.hparams["encode"]:
            drawn, free = n // 2, n // 4
        z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(int(seed))).to(self.device)
        faces = [faces_from_z(z[: n - free]), independent_faces(z[n - free :])]
        images = torch.cat([render(part) for part in faces]).contiguous(memory_format=torch.channels_last)
        truth = torch.cat([factors(part) for part in faces])
        mapped = self.generator_network.mapping(z[: n - free])
        with torch.no_grad():
            self.generator_network.mapping.w_avg.lerp_(mapped.detach().float().mean(0), 0.005)
        parts = {"readout": readout_loss(self.readout(mapped).float(), truth[: n - free])}
        w = mapped[:drawn]
        if self.hparams["encode"]:
            encoded = self.encode(images)
            w = torch.cat([w, encoded[drawn:]])
            parts["alignment"] = F.mse_loss(encoded[: n - free].float(), mapped.detach().float())
            parts["readout"] = parts["readout"] + readout_loss(self.readout(encoded).float(), truth)
        if small:
            out, target, inner = self.draw_small(w).float(), F.avg_pool2d(images, 2), F.avg_pool2d(self.inner[None], 2)
        else:
            out, target, inner = self.draw(w).float(), images, self.inner
            if self.hparams["perceptual"]:
                parts["perceptual"] = self.distance(out, images)
        error = out - target
        parts["gradient"] = gradient_distance(out, target)
        loss: Tensor = ((error.abs() + error.square()) * inner).mean()
        self.log_dict({"train/pixels": loss} | {f"train/{k}": v for k, v in parts.items()}, batch_size=n)
        for name, part in parts.items():
            loss = loss + self.hparams[name] * part
        return loss, images, out

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        keep = 1.0 - 1.0 / min(float(self.hparams["averaging"]), 0.1 * step + 1.0)
        for name in ("encoder", "generator_network"):
            own, average = getattr(self, name).state_dict(), self.average[name].state_dict()
            for key, value in average.items():
                if value.is_floating_point():  # running statistics too: they belong to the weights of their time
                    value.lerp_(own[key], 1.0 - keep)
                else:
                    value.copy_(own[key])

    def validation_step(self, seed: int) -> None:
        """Signal-to-noise ratio and share of the renders' Laplacian energy, of reconstructions and of mapped z."""
        encoder, generator = self.average["encoder"], self.average["generator_network"]
        assert isinstance(generator, StyleGAN2)
        n = int(self.hparams["batch_size"])
        z = torch.randn(n, Z_DIM, generator=torch.Generator().manual_seed(int(seed))).to(self.device)
        images = render(faces_from_z(z))
        for name, w in (("mapped", generator.mapping(z)), ("encoded", encoder(images))):
            out = generator.draw(w).float().clamp(-1, 1)
            error = (out - images).square().mean((1, 2, 3))
            self.log(f"val/psnr_{name}", (10 * torch.log10(4 / error)).mean(), prog_bar=True, batch_size=n)
            share = laplacian_energy(out).mean() / laplacian_energy(images).mean()
            self.log(f"val/laplacian_{name}", share, prog_bar=True, batch_size=n)


def draw_small(network: StyleGAN2, w: Tensor) -> Tensor:
    """Images (B, 3, 32, 32) of w (B, w_dim): the synthesis network without its last block, which stays untouched."""
    synthesis = network.synthesis
    ws = w[:, None].expand(-1, synthesis.num_ws, -1)
    x: Tensor | None = None
    image: Tensor | None = None
    at = 0
    for resolution in synthesis.resolutions[:-1]:
        block = getattr(synthesis, f"b{resolution}")
        x, image = block(x, image, ws[:, at : at + block.num_conv + 1], ["const"] * block.num_conv)
        at += block.num_conv
    assert image is not None
    return image

"""What the priors share: the noise prediction of a network, its error, and the variational bound."""

from typing import Any, Literal

import torch
from torch import Tensor

from lcg_lightning.diffusion.bound import elbo_estimate
from lcg_lightning.diffusion.noise import sample_noise
from lcg_lightning.models.base import NoisedLatentModule
from lcg_lightning.networks.latent import LatentMLP

ELBO_DRAWS = 8
"""Network evaluations per sample of the variational bound."""

Output = Literal["residual", "eps"]


class DenoisingModule(NoisedLatentModule):
    """Predicts noise. What a network takes beside latents and times, such as conditions (B, C), is ``given``.

    Args:
        net: the network to train.
        output: what it predicts, see :class:`lcg_lightning.models.prior.LatentPrior`.
        training: arguments of ``NoisedLatentModule``.
    """

    ema: LatentMLP
    net: LatentMLP

    def __init__(self, net: LatentMLP, output: Output, **training: Any) -> None:
        super().__init__(net, **training)
        self.output = output

    def _mixing(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (S,) float64 of z_t and the network's output in eps_theta, at times t (S,).

        They are sqrt(1 - a) and sqrt(a), or 0 and 1 with ``output: eps``.
        """
        if self.output == "eps":
            return torch.zeros_like(t, dtype=torch.float64), torch.ones_like(t, dtype=torch.float64)
        logsnr = self.schedule.logsnr_at(t)
        return torch.sigmoid(-logsnr).sqrt(), torch.sigmoid(logsnr).sqrt()

    def time_table(self, t: Tensor) -> list[tuple[Tensor, float, float]]:
        """One row (that of the averaged network, the two weights) per time index in t (S,)."""
        noise, signal = self._mixing(t)
        return list(zip(self.ema.time_table(t), noise.tolist(), signal.tolist(), strict=True))

    def forward_at(self, z: Tensor, row: tuple[Tensor, float, float], *given: Tensor) -> Tensor:
        """Predicted noise (B, D) for z (B, D) at the shared time of a table row."""
        at, noise, signal = row
        return noise * z + signal * self.ema.forward_at(z, at, *given)

    def forward(self, z: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        """Predicted noise (B, D) of the averaged network for z (B, D) at times t (B,)."""
        return self._predict(self.ema, z, t, *given)

    def _predict(self, net: LatentMLP, z: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        noise, signal = (c.to(z)[:, None] for c in self._mixing(t))
        out: Tensor = noise * z + signal * net(z, t, *given)
        return out

    def training_error(self, z0: Tensor, batch_idx: int, *given: Tensor) -> Tensor:
        """Mean squared error of the noise that ``net`` predicts, over samples and dimensions of z0 (B, D)."""
        t, eps = self.noise_for_training(z0, batch_idx)
        error = self._predict(self.net, self.noised(z0, t, eps), t, *given) - eps
        return error.square().mean()

    def evaluation_error(self, z0: Tensor, index: Tensor, *given: Tensor) -> Tensor:
        """Mean squared error (B,) of the averaged network; index (B,) determines the noise."""
        t, eps = self.noise_for_evaluation(z0, index)
        error = self.forward(self.noised(z0, t, eps), t, *given) - eps
        return error.square().mean(1)

    def elbo(self, z0: Tensor, index: Tensor, *given: Tensor) -> Tensor:
        """Estimated variational bound (B,), in nats, on log p(z0) for z0 (B, D); index (B,) determines the noise."""
        noise = sample_noise(self.seed, index, (ELBO_DRAWS, z0.shape[1]), draw=2)
        uniform = torch.special.ndtr(sample_noise(self.seed, index, (1,), draw=3)[:, 0])
        repeated = [values.repeat_interleave(ELBO_DRAWS, 0) for values in given]
        return elbo_estimate(lambda z, t: self(z, t, *repeated), z0, self.schedule, noise.to(z0), uniform.to(z0))

"""Rejection sampling: exact samples of p(z) p(c | z), at the price of the draws that are thrown away."""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor

from lcg_lightning.attributes import TOLERANCE
from lcg_lightning.conditions import Condition, log_prob, take
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.noise import SampleNoise, sample_noise
from lcg_lightning.diffusion.samplers import Sampler, SamplerName
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Method
from lcg_lightning.methods.unguided import Unguided
from lcg_lightning.models.clean import clean_outputs
from lcg_lightning.models.load import load_classifier

AT_ONCE = 1024
"""Latents drawn together."""
_UNIFORM = 1 << 31
"""Draw number of a candidate's uniform, beyond those of any sampler."""


class Rejection(Method):
    """Draws from the prior until the classifier accepts, with probability p(c | z) on clean latents.

    So samples follow p(z) p(c | z) exactly, for any condition: the reference for accuracy, whose cost is the number of
    draws. The density of a number has no bound, so its event is that the number lies within a tenth of its range of
    the target, as accuracy counts it. ``2*Smiling`` accepts with the squared probability.

    Draw k of a sample takes noise of that sample and k alone, so results do not depend on batches or processes. A
    sample that has no accepted draw among ``max_draws`` gets the most probable of them, with a warning of how many
    there were. ``nfe`` counts all draws up to the accepted one, averaged over the samples of this process so far.

    Args:
        prior: checkpoint of a ``LatentPrior``.
        classifier: checkpoint of a ``LatentClassifier``.
        max_draws: largest number of draws for one sample, 1 or more.
        sampler: sampler of the prior, as in ``Unguided``.
        steps: number of sampling steps.

    Raises:
        UserError: max_draws below 1, or an option that ``Unguided`` refuses.
    """

    name = "rejection"

    def __init__(
        self,
        prior: Path,
        classifier: Path,
        max_draws: int = 200,
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
    ) -> None:
        start = Unguided(prior, sampler, steps)
        super().__init__(**start.config, classifier=classifier, max_draws=max_draws)
        if max_draws < 1:
            raise UserError(f"method rejection: max_draws is {max_draws}; give 1 or more")
        self.start, self.sampler = start, start.sampler
        self.classifier_path, self.max_draws = classifier, max_draws

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads prior and classifier."""
        self.start.prepare(store, space)
        self.classifier = load_classifier(self.classifier_path, store)
        self.schema = store.schema
        self.samples = self.evaluations = 0

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """The first accepted draw (B, D) of each sample."""
        n = len(noise.index)
        answers = torch.zeros(n, noise.dim, device=noise.device)
        best = torch.full((n,), -math.inf, device=noise.device)  # log p(c | z) of the answers
        left, first = torch.arange(n, device=noise.device), 0
        while len(left) and first < self.max_draws:
            ks = range(first, min(first + max(1, AT_ONCE // len(left)), self.max_draws))
            z, log_p, accepted = self._candidates(condition, noise, left, ks)
            for j in range(len(ks)):
                waiting = ~accepted[:j].any(0)  # (L,)
                better = waiting & (accepted[j] | (log_p[j] > best[left]))
                answers[left[better]], best[left[better]] = z[j, better], log_p[j, better]
                self.evaluations += int(waiting.sum()) * int(self.start.nfe)
            left, first = left[~accepted.any(0)], ks.stop
        self.samples += n
        self.nfe = self.evaluations / self.samples
        if len(left):
            warnings.warn(
                f"method rejection: {len(left)} of {n} samples were accepted in none of {self.max_draws} draws; the "
                "most probable draw of each is used",
                stacklevel=2,
            )
        return answers

    def _candidates(
        self, condition: Condition, noise: SampleNoise, rows: Tensor, ks: range
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws ks of some samples (K, L, D), their log p(c | z), and whether they are accepted (K, L)."""
        own = SampleNoise(noise.seed, noise.index[rows.cpu()], noise.dim, noise.device)
        z = self.start.draw(lambda draw: torch.cat([own(k << 32 | draw) for k in ks]))
        outputs = clean_outputs(self.classifier, z)
        log_p = log_prob(take(condition, rows.repeat(len(ks))), outputs, self.schema, TOLERANCE)
        normal = torch.cat([sample_noise(noise.seed, own.index, (1,), k << 32 | _UNIFORM)[:, 0] for k in ks])
        accepted = torch.special.log_ndtr(normal).to(log_p) < log_p
        shape = len(ks), len(rows)
        return z.view(*shape, -1), log_p.view(shape), accepted.view(shape)

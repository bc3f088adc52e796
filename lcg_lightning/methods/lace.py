"""LACE: controllable generation with energy-based models of latents and attributes."""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lcg_lightning.conditions import Condition, asked, log_prob, placed, take
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.chebyshev import rkc2
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Edit, Method
from lcg_lightning.models.load import load_clean_classifier

Energy = Callable[[Tensor, Tensor], Tensor]
"""Places (N,) in the batch and latents (N, D) of theirs, to the log-density (N,), up to a constant, that a sampler
climbs or draws from."""
BETA, END = (0.1, 20.0), 1e-3
"""The noise rate beta(t) at t = 0 and 1, linear between, and the time at which the ODE stops."""
TIME = BETA[0] / 2 * (1 - END) + (BETA[1] - BETA[0]) / 4 * (1 - END**2)
"""The integral of beta(t) / 2 from :data:`END` to 1, about 5.02."""


class LACE(Method):
    """Classifiers of clean latents as an energy (Nie et al., NeurIPS 2021, arXiv 2110.10873).

    Samples follow p(z | c), proportional to N(z; 0, I) p(c | z). The ODE sampler solves equation 7: of the
    probability-flow ODE of a variance-preserving diffusion, dz/dt = -1/2 beta(t) grad_z log p(c | z) is left, for t
    from 1 to 1e-3, since the Gaussian prior cancels. With ds = -1/2 beta(t) dt it is a gradient flow that does not
    depend on time, for s from 0 to 5.02, from the sample's start noise. :func:`gradient_flow` solves it by a stabilized
    method with steps of each sample's own. The authors use dopri5 in t with a tolerance of 1e-3; its error is about
    that of the default tolerance here.

    The Langevin sampler takes steps z + step_size grad log p(z, c) + noise n with fresh normal n.
    With noise sqrt(2 step_size) it samples the density; with the published .01, the default, it ends near its modes.

    Generation works in the generator's Gaussian z where it maps one to latents, else in standardized latents, as if
    they were normal. ``sampler`` in the record says which. A source has no known z, so edits always work in
    standardized latents. They start at the last result w0 and ask for all that steps have asked for so far; from the
    log-density they subtract ``reg_latents`` |w - w0|^2 and ``reg_logits`` |f(w) - f(w0)|^2, over the classifiers f of
    attributes that no step has asked for (section 3.4), and under either sampler the distance to the source takes the
    place of the Gaussian prior, which would draw every source towards the mean.

    Conditions are those of :mod:`lcg_lightning.conditions`: its OR and NOT are exact probabilities, where the authors
    use approximations of their own.

    Args:
        classifier: checkpoint of a ``CleanClassifier``.
        sampler: ``ode`` or ``langevin``.
        scale: factor of log p(c | z), one over the temperature; 1 as published.
        space: where generation works: the generator's ``z``, standardized latents ``w``, or ``auto``.
        reg_latents: weight of the distance to the source in edits.
        reg_logits: weight of the change of attributes that are not asked for.
        tolerance: of a step of the ODE solver, relative and absolute.
        steps: Langevin steps.
        step_size: factor of the gradient in a Langevin step.
        noise: standard deviation of the noise of a Langevin step.

    Raises:
        UserError: an option is out of range.
    """

    name = "lace"

    def __init__(
        self,
        classifier: Path,
        sampler: Literal["ode", "langevin"] = "ode",
        scale: float = 1.0,
        space: Literal["auto", "z", "w"] = "auto",
        reg_latents: float = 0.04,
        reg_logits: float = 0.01,
        tolerance: float = 0.02,
        steps: int = 100,
        step_size: float = 0.01,
        noise: float = 0.01,
    ) -> None:
        numbers = {"scale": scale, "reg_latents": reg_latents, "reg_logits": reg_logits, "noise": noise}
        super().__init__(
            classifier=classifier,
            sampler=sampler,
            space=space,
            tolerance=tolerance,
            steps=steps,
            step_size=step_size,
            **numbers,
        )
        for name, value in numbers.items():
            if not 0 <= value < math.inf:
                raise UserError(f"method lace: {name} is {value}; give a finite number of 0 or more")
        for name, value in (("tolerance", tolerance), ("step_size", step_size)):
            if not 0 < value < math.inf:
                raise UserError(f"method lace: {name} is {value}; give a finite number above 0")
        if steps < 1:
            raise UserError(f"method lace: steps is {steps}; give 1 or more")
        if sampler not in ("ode", "langevin") or space not in ("auto", "z", "w"):
            raise UserError(f"method lace: sampler {sampler}, space {space}; use ode or langevin, and auto, z or w")
        self.classifier_path, self.kind, self.space_name, self.scale = classifier, sampler, space, scale
        self.reg_latents, self.reg_logits, self.tolerance = reg_latents, reg_logits, tolerance
        self.steps, self.step_size, self.noise = steps, step_size, noise

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Loads the classifier.

        Raises:
            UserError: the classifier does not match the store, or ``space: z`` with a generator that maps no z.
        """
        self.classifier = load_clean_classifier(self.classifier_path, store)
        self.schema, self.latents = store.schema, space
        maps = space.generator.can("map_z")
        if self.space_name == "z" and not maps:
            raise UserError("method lace: this generator maps no z to its latents; set space: w")
        self.in_z = maps if self.space_name == "auto" else self.space_name == "z"
        solver = "rkc2" if self.kind == "ode" else "langevin"
        self.sampler, self.edit_sampler = f"{solver} in {'z' if self.in_z else 'w'}", f"{solver} in w"

    def generate(self, condition: Condition, noise: SampleNoise) -> Tensor:
        """Latents (B, D) from the sample's start noise; ``nfe`` counts evaluations of the classifiers.

        The count is the mean over all samples so far.
        """
        if self.in_z:
            width = self.latents.generator.z_dim
            assert width is not None
            noise = SampleNoise(noise.seed, noise.index, width, noise.device)
        condition = placed(condition, noise.device)

        def energy(rows: Tensor, z: Tensor) -> Tensor:
            value = self.scale * log_prob(take(condition, rows), self.classifier(self._to_latents(z)), self.schema)
            return value if self.kind == "ode" else value - z.square().sum(1) / 2

        z, used = self._sample(energy, noise(0), lambda step: noise(step + 1))
        self._count("nfe", used)
        return self._to_latents(z)

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each edit; ``edit_nfe`` as in :meth:`generate`, by step.

        The noise of Langevin edits belongs to the source latent: it is seeded by its content.
        """
        noise = SampleNoise(0, _content_index(source), source.shape[1], source.device)
        results: list[Tensor] = []
        for k, step in enumerate(steps):
            start, first = source, k * self.steps
            energy = self._anchored(step.merged, start)
            source, used = self._sample(energy, start, lambda i, first=first: noise(first + i))  # type: ignore[misc]
            self._count("edit_nfe", used + 1)
            results.append(source)
        return results

    def _anchored(self, condition: Condition, start: Tensor) -> Energy:
        """The log-density of edits of latents (B, D)."""
        with torch.inference_mode(False), torch.no_grad():
            widths = torch.tensor([attribute.num_outputs for attribute in self.schema])
            free = ~asked(condition, self.schema, len(start)).repeat_interleave(widths, 1)  # (B, K)
            free = free.to(start.device)
            before = self.classifier(start)
        condition = placed(condition, start.device)

        def energy(rows: Tensor, w: Tensor) -> Tensor:
            out: Tensor = self.classifier(w)
            change = ((out - before[rows]).square() * free[rows]).sum(1)
            moved = (w - start[rows]).square().sum(1)
            value = self.scale * log_prob(take(condition, rows), out, self.schema)
            return value.sub(moved, alpha=self.reg_latents).sub(change, alpha=self.reg_logits)

        return energy

    def _to_latents(self, z: Tensor) -> Tensor:
        """Standardized latents (B, D) of the space that generation works in."""
        return self.latents.standardize(self.latents.generator.map_z(z)) if self.in_z else z

    def _sample(self, energy: Energy, z: Tensor, noise: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
        """Latents (B, D) under an energy, from z (B, D), and the evaluations (B,) that each took."""
        if self.kind == "ode":
            return gradient_flow(energy, z, self.tolerance)
        z = langevin(energy, z, noise, self.steps, self.step_size, self.noise)
        return z, torch.full((len(z),), float(self.steps))


def gradient_flow(energy: Energy, z: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Solves equation 7 of arXiv 2110.10873, dz/ds = grad energy(z) for s from 0 to :data:`TIME`.

    Classifiers that are sure make the flow stiff, so stability limits the steps of explicit methods such as dopri5. The
    stabilized :func:`~lcg_lightning.diffusion.chebyshev.rkc2` needs a fifth to a half of its evaluations.

    Returns:
        Latents (B, D), and the number of evaluations (B,) of the energy.
    """
    return rkc2(lambda rows, z: gradient(energy, rows, z), z, TIME, tolerance)


def langevin(
    energy: Energy, z: Tensor, noise: Callable[[int], Tensor], steps: int, step_size: float, scale: float
) -> Tensor:
    """Langevin dynamics under exp(energy(z)); equation 5 of arXiv 2110.10873.

    Args:
        energy: the log-density.
        z: where to start (B, D).
        noise: step number to standard normal noise (B, D).
        steps: number of steps.
        step_size: factor of the gradient.
        scale: factor of the noise.
    """
    rows = torch.arange(len(z), device=z.device)
    for step in range(steps):
        z = z + step_size * gradient(energy, rows, z) + scale * noise(step)
    return z


def gradient(energy: Energy, rows: Tensor, z: Tensor) -> Tensor:
    """The gradient (N, D) of an energy at z (N, D), in ``rows`` (N,) of the batch; inference mode does not matter."""
    with torch.inference_mode(False), torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(energy(rows, z).sum(), z)
    return found


def _content_index(latents: Tensor) -> Tensor:
    """A number (B,) int64 of 0 or more that stands for the content of each latent (B, D)."""
    rows = latents.detach().float().cpu().numpy()
    return torch.tensor([int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:7], "big") for row in rows])

"""Guidance: combines a prior, a classifier with a condition, and a source into one noise prediction on a grid.

Conditional generation follows score(z_t) + scale * grad log p(c | z_t) (arXiv 2304.12536; Dhariwal and Nichol,
arXiv 2105.05233, eq. 14). At scale 1 this is the score of p(z_t | c), so samples follow p(z_0 | c). At any other scale
it is not the score of a noised p(z_0) p(c | z_0)^scale, so samples follow that only roughly: on a mixture of Gaussians
at scale 2, the relative error of the noise prediction was .04 to .24. Corrections
(:class:`~lcg_lightning.diffusion.samplers.PredictorCorrector`) or resampling (arXiv 2503.02819) reduce the difference.

Editing adds a :class:`Source`. For every form, a step is

    eps_hat(z) = z_gain z + source_gain z_src + prior_gain eps_theta(u) + classifier_gain grad_u log p(c | u)

with u = u_gain z + u_source_gain z_src, which both networks read at the same time index. A step costs one forward pass
of the prior, and one forward and one backward pass of the classifier for any number of conditions. The gains are
Python floats.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import Condition, log_prob, placed
from lcg_lightning.diffusion.grids import Grid
from lcg_lightning.diffusion.schedule import EpsModel, NoiseSchedule
from lcg_lightning.errors import UserError


class TimedNetwork(Protocol):
    """A network whose time enters as a table row, such as ``LatentPrior`` and ``LatentClassifier``."""

    def time_table(self, t: Tensor, /) -> Any:
        """Everything that depends only on time indices t (S,), which are on the CPU; indexed by position."""

    def forward_at(self, z: Tensor, row: Any, /) -> Tensor:
        """Outputs for z (B, D) at the time of a table row."""


@dataclass(frozen=True, eq=False)
class Source:
    """The latents that an edit starts from, and how strongly the result is tied to them.

    ``observation``: the source is a noisy reading of the result, p(z_src | z_0) = N(z_0, tau^2 I). Given z_0,
    z_t / sqrt(a) and z_src are independent Gaussian readings of it, with precisions a / (1-a) and 1 / tau^2. Together
    they are equivalent to one reading with the sum of the precisions: a noised latent u at the level with that
    signal-to-noise ratio. Hence E[z_0 | z_t, z_src, c] = E[z_0 | u, c] for every prior and every classifier, and the
    networks are evaluated at u and its time. At scale 1 this is exact: samples follow p(z_0 | z_src, c), except that a
    u less noisy than the schedule's first level is read at t = 0. At any other scale it is as approximate as guidance
    without a source, with one exception: with a flat prior (none given) and a constant gradient g, the target is
    N(z_src + tau^2 scale g, tau^2 I) at any scale. Latent arithmetic is its limit at fixed tau^2 scale.

    ``bayes``: eps_hat = (1 - eta) eps_theta + eta eps_src with eps_src = (z_t - sqrt(a) z_src) / sqrt(1-a). If the
    source is z_0 itself, the terms with eta are eta grad log p(z_src | z_t) by Bayes' rule. At eta = 1 a bounded
    gradient cannot move the result away from z_src.

    ``likelihood``: eps_hat = eps_theta + eta eps_src, which drops -log p(z_t) from Bayes' rule.

    Raises:
        UserError: the form's weight is missing or out of range, or the weight of another form is given.
    """

    z: Tensor
    """(B, D) standardized."""
    form: Literal["observation", "bayes", "likelihood"] = "observation"
    tau: float | None = None
    """Standard deviation of ``observation``, in units of the standardized latents; above 0, at most 1e6."""
    eta: float | None = None
    """Weight of ``bayes`` and ``likelihood``, within 0 .. 1."""

    def __post_init__(self) -> None:
        needed, other = ("tau", "eta") if self.form == "observation" else ("eta", "tau")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise UserError(f"source of form {self.form!r}: give {needed}, and not {other}")
        if self.tau is not None and not 0 < self.tau <= 1e6:
            raise UserError(f"source: tau is {self.tau}; it must be above 0 and at most 1e6")
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise UserError(f"source: eta is {self.eta}; it must be from 0 to 1")


class _Step(NamedTuple):
    """The coefficients of one step; the names are those of the module's formula."""

    t: float
    u_gain: float
    u_source_gain: float
    z_gain: float
    source_gain: float
    prior_gain: float
    classifier_gain: float


def guide(
    prior: TimedNetwork | None,
    classifier: TimedNetwork | None,
    condition: Condition | None,
    schema: AttributeSchema,
    schedule: NoiseSchedule,
    grid: Grid,
    *,
    scale: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    source: Source | None = None,
) -> EpsModel:
    """The guided noise prediction on a grid.

    Args:
        prior: predicts noise; None is a flat prior, whose noise prediction is zero.
        classifier: predicts attribute outputs (B, K).
        condition: what to ask for; None asks for nothing and leaves the classifier out.
        schema: the layout of the classifier's outputs.
        schedule: the noise schedule that the networks were trained with.
        grid: the times of the sampler.
        scale: factor of grad log p(c | z_t); the exponent of p(c | z_0), exactly at 1 and approximately elsewhere.
        interval: the classifier guides only at times, as fractions of T - 1, within this closed interval
            (Kynkäänniemi et al., arXiv 2404.07724); it is not evaluated elsewhere. With an observed source this is the
            time of u, which never exceeds the time at which noise has standard deviation tau relative to the signal.
            An interval above that time guides nothing.
        source: what to edit.

    Returns:
        (z (B, D), i) -> (B, D): the noise prediction at grid.t[i]. It may be called in inference mode.

    Raises:
        UserError: a condition without a classifier; neither a prior nor a source; a value that
            :func:`check_guidance` or :func:`check_tau` refuses; or an interval that contains none of the grid's times.
    """
    check_guidance(scale, interval)
    if condition is not None and classifier is None:
        raise UserError("guidance: a condition needs a classifier")
    if prior is None and source is None:
        raise UserError("guidance: without a prior there is nothing to sample; give a prior or a source")
    levels = grid.alpha_bar[: len(grid.t)]
    if source is None:
        steps = [_plain(t, a, scale) for t, a in zip(grid.t, levels, strict=True)]
    elif source.tau is not None:
        if prior is not None:
            check_tau(source.tau, schedule)
        steps = _observation(schedule, levels, source.tau, scale)
    elif source.eta is not None:
        prior_share = 1 - source.eta if source.form == "bayes" else 1.0
        steps = [_pulled(t, a, scale, source.eta, prior_share) for t, a in zip(grid.t, levels, strict=True)]
    low, high = (bound * (schedule.num_steps - 1) for bound in interval)
    guided = [condition is not None and low <= s.t <= high for s in steps]
    if condition is not None and not any(guided):
        last = schedule.num_steps - 1
        raise UserError(
            f"guidance: the interval {interval[0]} to {interval[1]} holds no time at which the classifier is asked; "
            f"those lie from {steps[-1].t / last:.2f} to {steps[0].t / last:.2f}"
        )
    known: dict[torch.device, tuple[Any, Any, Condition | None]] = {}

    def constants(device: torch.device) -> tuple[Any, Any, Condition | None]:
        """The networks' tables, and the condition with its targets on the device."""
        if device not in known:
            t = torch.tensor([s.t for s in steps], dtype=torch.float64)
            with torch.inference_mode(False), torch.no_grad():
                asked = None if condition is None else placed(condition, device)
                known[device] = (prior and prior.time_table(t), classifier and classifier.time_table(t), asked)
        return known[device]

    def eps(z: Tensor, i: int) -> Tensor:
        step = steps[i]
        prior_rows, classifier_rows, asked = constants(z.device)
        u = z if source is None else _mix(z, step.u_gain, source.z, step.u_source_gain)
        out = torch.zeros_like(z) if source is None else _mix(z, step.z_gain, source.z, step.source_gain)
        if prior is not None and step.prior_gain != 0:
            with torch.no_grad():
                out = out.add(prior.forward_at(u, prior_rows[i]), alpha=step.prior_gain)
        if asked is not None and classifier is not None and guided[i]:
            with torch.inference_mode(False), torch.enable_grad():
                u = u.detach().clone().requires_grad_()
                value = log_prob(asked, classifier.forward_at(u, classifier_rows[i]), schema)
                (gradient,) = torch.autograd.grad(value.sum(), u)
            out = out.add(gradient, alpha=step.classifier_gain)
        return out

    return eps


def check_guidance(scale: float, interval: tuple[float, float]) -> None:
    """Raises a UserError unless the scale is from 0 to 1e30 and the interval ascends within 0 .. 1."""
    if not 0 <= scale <= 1e30:
        raise UserError(f"guidance: scale is {scale}; give a number from 0 to 1e30 (~Smiling pushes away)")
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise UserError(f"guidance: interval is {low} to {high}; give two fractions from 0 to 1, the smaller one first")


def check_tau(tau: float, schedule: NoiseSchedule) -> None:
    """Raises a UserError if an observed source is less noisy than a schedule's cleanest level."""
    least = math.exp(-schedule.logsnr[0].item() / 2)
    if tau < least:
        raise UserError(f"source: tau is {tau}, but the schedule's cleanest level is {least:.3g}; give more than that")


def _plain(t: float, a: float, scale: float) -> _Step:
    return _Step(t, 1.0, 0.0, 0.0, 0.0, 1.0, -math.sqrt(1 - a) * scale)


def _pulled(t: float, a: float, scale: float, eta: float, prior_gain: float) -> _Step:
    noise = math.sqrt(1 - a)
    return _Step(t, 1.0, 0.0, eta / noise, -eta * math.sqrt(a) / noise, prior_gain, -noise * scale)


def _observation(schedule: NoiseSchedule, levels: Iterable[float], tau: float, scale: float) -> list[_Step]:
    """The steps of the ``observation`` form, where v = tau^2 and d = 1 - a + a v.

    u = (sqrt(a) v z + (1 - a) z_src) / sqrt(d (1 - a + v)), whose level is d / (1 - a + v), and
    eps_hat = sqrt(1 - a) / d (z - sqrt(a) z_src) + sqrt(a v / d) eps(u), where eps(u) is the guided prediction at u.
    """
    v = tau**2
    steps = []
    for a in levels:
        d = 1 - a + a * v
        unit = math.sqrt(d * (1 - a + v))
        noise_u = math.sqrt((1 - a) * v / (1 - a + v))
        gain = math.sqrt(a * v / d)
        steps.append(
            _Step(
                t=schedule.time_at([math.log(d) - math.log((1 - a) * v)])[0],
                u_gain=math.sqrt(a) * v / unit,
                u_source_gain=(1 - a) / unit,
                z_gain=math.sqrt(1 - a) / d,
                source_gain=-math.sqrt((1 - a) * a) / d,
                prior_gain=gain,
                classifier_gain=-gain * noise_u * scale,
            )
        )
    return steps


def _mix(z: Tensor, gain: float, source: Tensor, source_gain: float) -> Tensor:
    return z * gain + source.to(z) * source_gain

"""What the samples of a batch are asked for: a task's conditions, in groups of samples that ask for the same trees."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.conditions import Condition, merge, met, named, to_text
from lcg_lightning.conditions.labels import per_sample
from lcg_lightning.diffusion.noise import SampleNoise
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.tasks import Task
from lcg_lightning.formats.fingerprint import combine, digest
from lcg_lightning.generators.base import Generator
from lcg_lightning.methods.base import Edit, Method


@dataclass(frozen=True, eq=False)
class Group:
    """Samples of a batch that ask for the same trees."""

    places: Tensor
    """(G,) int64, their places in the batch."""
    steps: list[Edit]
    """What each step asks; targets per sample are (G,)."""

    @property
    def wanted(self) -> list[Condition]:
        """What the result of each step should meet."""
        return [step.merged for step in self.steps]

    def answers(self, method: Method, sources: Tensor, noise: SampleNoise | None) -> list[Tensor]:
        """A method's latents (G, D) after each step: edits of the sources (G, D), or one generation from noise."""
        return method.edit(sources, self.steps) if noise is None else [method.generate(self.wanted[0], noise)]

    def named(self, schema: AttributeSchema) -> Tensor:
        """The attributes that some step names for each sample, (G, A) bool on the CPU."""
        found = [named(step.asked, schema, len(self.places)) for step in self.steps]
        return torch.stack(found).any(0)

    def met(self, labels: Tensor, schema: AttributeSchema) -> Tensor:
        """The samples (G,) bool whose labels (G, A) meet what every step asks, so that no step asks for a change."""
        return torch.stack([met(condition, labels, schema) for condition in self.wanted]).all(0)


def groups(task: Task, labels: Tensor, index: Tensor, schema: AttributeSchema) -> Iterator[Group]:
    """The groups of a batch of samples.

    Args:
        task: the task.
        labels: label rows (B, A) of the samples, natural units.
        index: global sample indices (B,).
        schema: the attributes.
    """
    kinds = task.kinds(index)
    for kind in sorted(set(kinds.tolist())):
        places = (kinds == kind).nonzero()[:, 0]
        conditions = task.steps(labels[places.to(labels.device)], index[places], schema)
        merged = [merge(conditions[: k + 1]) for k in range(len(conditions))]
        yield Group(places, [Edit(*pair) for pair in zip(conditions, merged, strict=True)])


def survey(task: Task, split: str, labels: Tensor, schema: AttributeSchema) -> tuple[int, str]:
    """The number of steps, and a fingerprint of what all rows of a split are asked for.

    Args:
        task: the task.
        split: the split's name.
        labels: its labels (N, A).
        schema: the attributes.

    Raises:
        UserError: the schema does not have what the task names, or samples ask for different numbers of steps.
    """
    counts, parts = set(), []
    for group in groups(task, labels, torch.arange(len(labels)), schema):
        counts.add(len(group.steps))
        for step in group.steps:
            parts.append(to_text(step.asked, schema))
            parts.append(digest({"places": group.places, **per_sample(step.asked)}))
    if len(counts) != 1 or 0 in counts:
        raise UserError(f"task {task.name}: it asks for {sorted(counts)} steps; give every sample as many, at least 1")
    return counts.pop(), combine(split, *parts)


def check_sources(task: Task, generator: Generator, judged: bool) -> None:
    """Raises a UserError if sources cannot be drawn from the generator, or nothing tells their labels."""
    if task.sampled and not generator.can("sample_latents"):
        raise UserError(f"task {task.name}: this generator cannot sample sources; edit the store's rows instead")
    if task.sampled and not judged:
        raise UserError(f"task {task.name}: sampled sources have the labels that a judge reads; name a judge")

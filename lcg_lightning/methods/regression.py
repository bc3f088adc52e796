"""Regression directions: one direction per attribute with all others held fixed, and moves measured along them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from lcg_lightning.conditions import targets
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.diffusion.samplers import Sampler, SamplerName
from lcg_lightning.errors import UserError
from lcg_lightning.kept import once
from lcg_lightning.methods.base import Edit
from lcg_lightning.methods.moving import MovingMethod
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.clean import clean_outputs
from lcg_lightning.models.load import load_classifier

CHUNK = 2**20
"""Numbers in the latents of a chunk of rows."""


def regression_directions(
    latents: Tensor,
    labels: Tensor,
    standardize: Callable[[Tensor], Tensor] = torch.clone,
    unit: Callable[[Tensor], Tensor] = torch.clone,
) -> Tensor:
    """Least squares of latents on all labels and a constant: the change of z for a unit change of one label.

    The rows are read twice, a chunk at a time, so they may be memory-mapped and take no more memory than one chunk.

    Args:
        latents: (N, *shape).
        labels: (N, A), NaN where unknown. Rows with an unknown label are left out, unless the label is unknown in every
            row, or the same in all that know it.
        standardize: maps latents (n, *shape) to standardized ones z (n, D).
        unit: maps labels (n, A) to the unit scale.

    Returns:
        (A, D) in the dtype of z; NaN for a label that is never known or never changes.

    Raises:
        UserError: too few rows, or labels that determine one another, so that none changes with the others held fixed.
    """
    size = max(1, CHUNK // math.prod(latents.shape[1:]))
    chunks = list(zip(torch.split(latents, size), torch.split(labels, size), strict=True))  # views
    lowest = torch.stack([unit(part).nan_to_num(nan=math.inf).amin(0) for _, part in chunks]).amin(0)
    highest = torch.stack([unit(part).nan_to_num(nan=-math.inf).amax(0) for _, part in chunks]).amax(0)
    used = highest > lowest  # (A,)
    directions = torch.full_like(standardize(latents[:1]), math.nan).repeat(len(used), 1)  # (A, D)
    projected = directions[:0].double()  # (used + 1, D) after the first chunks
    triangle = projected.new_zeros(0, int(used.sum()) + 1)  # (used + 1, used + 1)
    rows = 0
    for part, known in chunks:  # QR of [triangle; design] is QR of the whole design so far
        units = unit(known)[:, used]
        complete = ~units.isnan().any(1)  # (n,)
        design = F.pad(units[complete].double(), (0, 1), value=1.0)  # (complete, used + 1)
        q, triangle = torch.linalg.qr(torch.cat([triangle, design]))
        projected = q.T @ torch.cat([projected, standardize(part)[complete].double()])
        rows += len(design)
    width, eps = triangle.shape[1], torch.finfo(torch.float64).eps
    rank = int(torch.linalg.matrix_rank(triangle, rtol=max(rows, width) * eps)) if rows else 0
    if rank < width:
        raise UserError(
            f"regression directions: {rows} rows whose labels are all known span {rank} of {width} dimensions; a label "
            "is a combination of others, or too few rows are fully labelled"
        )
    directions[used] = torch.linalg.solve_triangular(triangle, projected, upper=True)[:-1].to(directions)
    return directions


def expected_labels(classifier: LatentClassifier, z: Tensor) -> Tensor:
    """A classifier's mean labels (B, A), on the unit scale, of clean latents (B, D).

    These are probabilities of binary attributes, so a source that the classifier is unsure of moves part of the way.
    Categorical attributes are NaN.
    """
    outputs = clean_outputs(classifier, z)
    columns = []
    for attribute in classifier.schema:
        out = outputs[:, classifier.schema.head(attribute.name)][:, 0]
        if attribute.kind == "categorical":
            out = torch.full_like(out, math.nan)
        columns.append(out.sigmoid() if attribute.kind == "binary" else out)
    return torch.stack(columns, 1)


def regression_move(z: Tensor, reading: Tensor, wanted: Tensor, directions: Tensor) -> Tensor:
    """Latents (B, D) moved by (target - reading) x direction for every label that is asked for.

    Args:
        z: standardized latents (B, D).
        reading: what their labels are (B, A), on the unit scale.
        wanted: targets (B, A) on the unit scale, NaN where nothing is asked.
        directions: (A, D) of :func:`regression_directions`.

    Returns:
        (B, D); NaN where a target has no direction.
    """
    asked = ~wanted.isnan()
    steps = torch.where(asked, wanted - reading, 0.0).to(z)
    return z + steps @ torch.where(asked.any(0)[:, None], directions, 0.0)


def regression_moves(z: Tensor, wanted: Tensor, classifier: LatentClassifier, directions: Tensor, moves: int) -> Tensor:
    """Several of :func:`regression_move`, each from a new reading: Newton's method with a constant Jacobian.

    In a curved space, one move does not arrive. Targets of attributes without a direction are left out.
    """
    wanted = wanted.masked_fill(directions.isnan().any(1), math.nan)
    for _ in range(moves):
        z = regression_move(z, expected_labels(classifier, z), wanted, directions)
    return z


def fit_directions(store: LatentStore, space: LatentSpace) -> Tensor:
    """The :func:`regression_directions` (A, D) of a store's train split; NaN for categorical attributes.

    Raises:
        UserError: labels that :func:`regression_directions` refuses.
    """
    return once(["regression directions", store.content_hash], lambda: _fitted(store, space))


def _fitted(store: LatentStore, space: LatentSpace) -> Tensor:
    latents, labels, _ = store.split("train")
    no_scale = torch.tensor([a.kind == "categorical" for a in store.schema])  # class numbers
    try:
        return regression_directions(
            latents, labels, space.standardize, lambda part: store.schema.unit(part).masked_fill(no_scale, math.nan)
        )
    except UserError as error:
        raise UserError(f"{store.path}: {error}") from None


class RegressionDirections(MovingMethod):
    """Moves a source by (target - reading) x direction for every attribute asked for.

    Directions are the least-squares coefficients of standardized latents on all labels and a constant, so each changes
    one attribute with all others held fixed. Readings are the classifier's mean labels. A step of an edit reads its
    source, which is the last step's result, and moves it to all targets so far; this corrects what earlier steps
    missed. With ``moves: 3`` and ``keep: true`` it makes the moves that LCG's edits start with, without guidance.
    Generation moves unguided samples of the prior.

    Args:
        classifier: checkpoint of the ``LatentClassifier`` that reads the source's labels.
        prior: checkpoint of a ``LatentPrior``; needed for generation, not for editing.
        scale: factor of every move; 1 is the least-squares answer.
        moves: moves of each edit, each from a new reading; 1 or more.
        keep: also move back to the original source's readings of all that nobody asks for.
        sampler: sampler of the prior, as in ``Unguided``.
        steps: number of sampling steps.

    Raises:
        UserError: a scale that is not finite, or an option that ``Unguided`` refuses.
    """

    name = "regression"
    directions: Tensor

    def __init__(
        self,
        classifier: Path,
        prior: Path | None = None,
        scale: float = 1.0,
        moves: int = 1,
        keep: bool = False,
        sampler: SamplerName | Sampler = "dpmpp_2m",
        steps: int = 20,
    ) -> None:
        if not math.isfinite(scale):
            raise UserError(f"method regression: scale is {scale}; give a finite number")
        if moves < 1:
            raise UserError(f"method regression: moves is {moves}; give 1 or more")
        super().__init__(prior, sampler, steps, classifier=classifier, scale=scale, moves=moves, keep=keep)
        self.classifier_path, self.scale, self.moves, self.keep = classifier, scale, moves, keep

    def prepare(self, store: LatentStore, space: LatentSpace) -> None:
        """Fits the directions on the train split and loads the classifier.

        Raises:
            UserError: labels that :func:`regression_directions` refuses, or networks that do not match the store.
        """
        super().prepare(store, space)
        self.classifier = load_classifier(self.classifier_path, store)
        directions = fit_directions(store, space)
        self.register_buffer("directions", directions, persistent=False)  # (A, D)

    def edit(self, source: Tensor, steps: Sequence[Edit]) -> list[Tensor]:
        """Latents (B, D) after each step, whose source is the previous step's result.

        Raises:
            UserError: a condition that leaves a choice, or an attribute without a direction.
        """
        results = []
        before = expected_labels(self.classifier, source) if self.keep else None
        for step in steps:
            rows = targets(step.merged, self.schema, len(source)).to(source)
            for name, direction, wanted in zip(self.schema.names, self.directions, rows.T, strict=True):
                if direction.isnan().any() and not wanted.isnan().all():
                    raise UserError(
                        f"method regression: no direction for {name}; it is categorical or has no labels that vary"
                    )
            wanted = self.schema.unit(rows)
            if before is not None:
                wanted = torch.where(wanted.isnan(), before, wanted)
            source = regression_moves(source, wanted, self.classifier, self.scale * self.directions, self.moves)
            results.append(source)
        return results

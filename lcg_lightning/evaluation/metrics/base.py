"""The interface of metrics: they take batches of judged samples and report estimates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.space import LatentSpace
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.estimates import Column, Estimate
from lcg_lightning.evaluation.judged import Judged, Pictures
from lcg_lightning.evaluation.metrics.intervals import mean_estimates
from lcg_lightning.evaluation.metrics.rows import flat, unflat
from lcg_lightning.files import plain
from lcg_lightning.generators.base import Truth


@dataclass(frozen=True)
class Setting:
    """What a metric knows about an evaluation before it begins."""

    schema: AttributeSchema
    """The attributes of targets (B, A) and of the judge's outputs (B, K)."""
    edits: bool = False
    """Whether sources are edited; otherwise images are generated."""
    matches_data: bool = False
    """Whether a perfect method's images follow the data."""
    steps: int = 1
    """Number of steps of an edit; 1 for generation."""
    returns: bool = False
    """Whether the last step of an edit asks for what the source was."""
    networks: Mapping[str, str] = field(default_factory=dict)
    """Name and fingerprint of all that judges: the networks ``judge``, ``identity`` and ``features`` that are given,
    and the generator's ``truth`` if it is known, which is the judge too if none is given."""
    num_features: int = 0
    """Width F of :attr:`Pictures.features`."""
    reference: str = ""
    """Description of the pictures passed to :meth:`ImageMetric.update_reference`."""
    has_reference: bool = False
    """Whether the store has the split that they come from."""
    store: LatentStore | None = None
    """The store of the latents."""
    space: LatentSpace | None = None
    """The space of the latents, with their generator."""

    @property
    def truth(self) -> Truth | None:
        """What the generator knows of its latents without a judge."""
        return None if self.space is None else self.space.generator.truth

    @property
    def latent_dim(self) -> int:
        """Width D of :attr:`Pictures.z`; 0 if unknown."""
        return 0 if self.space is None else self.space.dim

    def basis(self, *networks: str) -> dict[str, str]:
        """The basis of a column whose figure depends on these networks."""
        return {name: self.networks[name] for name in networks}


class ImageMetric(Metric):
    """A metric of generated or edited images, over all samples of all processes.

    Subclasses set ``columns`` and implement ``update`` and ``compute``; states are added with ``add_state``.
    Constructor arguments, which YAML may give, go into ``config`` and from there into the record. For the mean of a
    per-sample number, :class:`PerSampleMetric` is shorter.
    """

    full_state_update = False
    columns: Sequence[Column] = ()
    """The figures that a leaderboard shows."""
    uses_reference = False
    """Whether :meth:`update_reference` must be called."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = plain(config)

    def applies(self, setting: Setting) -> bool:
        """Whether the metric applies; otherwise it is left out of the record."""
        return True

    def prepare(self, setting: Setting) -> None:
        """Sets up the metric, such as the width of its states; called once, before any other method."""

    def update(self, samples: Judged) -> None:
        """Adds a batch of samples. Over all processes, each index occurs once."""
        raise NotImplementedError

    def update_reference(self, pictures: Pictures, index: Tensor) -> None:
        """Adds a batch of reference pictures, rows ``index`` (B,) of the reference split."""

    def compute(self) -> dict[str, Estimate]:
        """Estimates by name: one per column, and details such as ``acc/Smiling`` of a column ``acc``."""
        raise NotImplementedError

    def per_sample(self) -> dict[str, NDArray[np.float64]]:
        """After :meth:`compute`: figures (N,) of single samples by name, by sample index; NaN where not counted."""
        return {}


class PerSampleMetric(ImageMetric):
    """Means of per-sample numbers, with 95 % bootstrap intervals.

    Subclasses implement :meth:`measure`. Edits that ask for nothing new (:attr:`Judged.met_before`) do not count: a
    method that does nothing would get them right.

    >>> from types import SimpleNamespace
    >>> class Brightness(PerSampleMetric):
    ...     columns = (Column("brightness", "Brightness"),)
    ...     def measure(self, samples):
    ...         return samples.result.images.mean((1, 2, 3))[:, None]
    >>> metric = Brightness()
    >>> images = torch.tensor([0.5, 0.5]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    >>> result = SimpleNamespace(images=images)
    >>> metric.update(SimpleNamespace(result=result, index=torch.arange(2), met_before=None))
    >>> metric.compute()
    {'brightness': Estimate(value=0.5, low=0.5, high=0.5)}
    """

    rows: list[Tensor]
    counts_all = False
    """Whether edits that ask for nothing new count too."""
    shares = False
    """Whether numbers that are all 0 or 1 are hits, whose share has an interval of its own; see ``mean_estimates``."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.set_dtype(torch.float64)
        self.add_state("rows", [], dist_reduce_fx="cat")

    @property
    def names(self) -> Sequence[str]:
        """Name of each per-sample number; by default those of the columns."""
        return [column.name for column in self.columns]

    def measure(self, samples: Judged) -> Tensor:
        """Numbers (B, len(names)) of the samples, any float dtype; NaN is ignored."""
        raise NotImplementedError

    def update(self, samples: Judged) -> None:
        """Measures a batch of samples."""
        values = self.measure(samples)
        if values.shape != (len(samples.index), len(self.names)):
            raise UserError(
                f"{type(self).__name__}: measure gives shape {tuple(values.shape)}, not "
                f"{(len(samples.index), len(self.names))}: a row for each sample, a column for each name"
            )
        if samples.met_before is not None and not self.counts_all:
            values = values.masked_fill(samples.met_before.to(values.device)[:, None], torch.nan)
        self.rows.append(flat(samples.index, values))

    def compute(self) -> dict[str, Estimate]:
        """The mean of each number that is not NaN for every sample.

        Raises:
            UserError: there is no sample, a sample was counted twice, or a number is infinite.
        """
        self.counted = values = self.gathered()
        if np.isinf(values).any():
            raise UserError(f"{type(self).__name__}: a sample's value is infinite; check the images")
        keep = np.flatnonzero((~np.isnan(values)).sum(0)).tolist()
        names = [self.names[i] for i in keep]
        return dict(zip(names, mean_estimates(values[:, keep], self.shares), strict=True)) if names else {}

    def per_sample(self) -> dict[str, NDArray[np.float64]]:
        """The numbers (N,) of all processes' samples, by sample index, whose means :meth:`compute` gave."""
        return dict(zip(self.names, self.counted.T, strict=True))

    def gathered(self) -> NDArray[np.float64]:
        """All rows (N, len(names)), sorted by sample index.

        Raises:
            UserError: there is no sample, or a sample was counted twice.
        """
        return unflat(self.rows, len(self.names), type(self).__name__)[1]

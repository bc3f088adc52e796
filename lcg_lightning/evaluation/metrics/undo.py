"""How near an edit and its reverse end to where they began."""

from torch import Tensor

from lcg_lightning.evaluation.estimates import Column
from lcg_lightning.evaluation.judged import Judged
from lcg_lightning.evaluation.metrics.base import PerSampleMetric, Setting


class UndoDistance(PerSampleMetric):
    """Distance between the source and the last result of an edit that was undone: ``undo``.

    It is the root mean square over the dimensions of standardized latents, so its unit is their standard deviation: 0
    for a method that returns to the source, sqrt(2) between strangers. What became of the identity is in ``id`` and
    ``id_distance``.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> source, result = (SimpleNamespace(z=torch.tensor([row])) for row in ([0.0, 1.0], [3.0, 5.0]))
    >>> metric = UndoDistance()
    >>> metric.update(SimpleNamespace(source=source, result=result, index=torch.tensor([0]), met_before=None))
    >>> metric.compute()["undo"].value
    3.5355339059327378
    """

    columns = (Column("undo", "Undo distance", higher_is_better=False, low=0.0),)

    def applies(self, setting: Setting) -> bool:
        """For edits that are undone."""
        return setting.returns

    def measure(self, samples: Judged) -> Tensor:
        """Distances (B, 1)."""
        assert samples.source is not None
        moved = samples.result.z.double() - samples.source.z.double()
        return moved.square().mean(1, keepdim=True).sqrt()

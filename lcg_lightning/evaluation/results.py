"""What an evaluation leaves in its folder: the record, per-sample figures, and pictures."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import gallery, records, samples
from lcg_lightning.evaluation.gallery import Kept
from lcg_lightning.evaluation.output import Claim
from lcg_lightning.evaluation.records import Record


def write_results(
    claim: Claim, record: Record, figures: Mapping[str, NDArray[np.float64]], shown: Sequence[Kept], edits: bool
) -> None:
    """Fills a claimed folder, as a whole or not at all.

    It gets ``record.json``, ``samples.safetensors`` (see :mod:`~lcg_lightning.evaluation.samples`), the picture
    ``samples.png`` and, of edits, ``edits.png`` (see :func:`~lcg_lightning.evaluation.gallery.keep`).

    Args:
        claim: the claimed folder.
        record: the run's record.
        figures: per-sample figures (n,) by name.
        shown: the first samples, with images and captions.
        edits: whether sources were edited.
    """
    with claim.fill() as folder:
        records.write(record, folder / "record.json")
        samples.write(figures, folder / samples.FILE)
        gallery.draw(shown, folder / "samples.png")
        if edits:
            gallery.keep(shown, folder / gallery.EDITS)


def write_failure(claim: Claim, record: Record) -> None:
    """Fills a claimed folder with the record of a method that diverged, unless another process has done so."""
    with suppress(UserError), claim.fill() as folder:
        records.write(record, folder / "record.json")

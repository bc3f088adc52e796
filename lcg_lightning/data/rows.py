"""Rows of a data set: splits, checks and statistics."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.errors import UserError

SPLITS = ("train", "val", "test")
_CHUNK = 8192  # rows per step of the float64 sums: bounds their memory


def hash_splits(ids: Sequence[str]) -> list[str]:
    """The split of each id, which depends only on the id: adding images moves no other image.

    Expected shares of train, val and test are 0.8, 0.1 and 0.1.

    >>> hash_splits(["0", "1", "2"]) == [hash_splits([i])[0] for i in "012"]
    True
    """
    splits = []
    for name in ids:
        u = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        splits.append("train" if u < 0.8 else "val" if u < 0.8 + 0.1 else "test")
    return splits


def check_labels(labels: Tensor, schema: AttributeSchema, ids: Sequence[str]) -> None:
    """Check that labels (N, A) are valid values of their attributes; NaN (unknown) is always valid.

    Raises:
        UserError: the shape is wrong, or a value is out of range; the message names the attribute and the image.
    """
    if labels.shape != (len(ids), len(schema)):
        raise UserError(f"labels have shape {tuple(labels.shape)}, expected ({len(ids)}, {len(schema)})")
    for attribute, values in zip(schema, labels.unbind(1), strict=True):
        low, high, allowed = attribute.low, attribute.high, "a number"
        if attribute.kind != "continuous":
            low, high, allowed = (
                0.0,
                len(attribute.classes) - 1.0 if attribute.classes else 1.0,
                "a whole number",
            )
        bad = (values < low) | (values > high)
        if attribute.kind != "continuous":
            bad |= values.isfinite() & (values != values.round())
        if bad.any():
            row = int(bad.nonzero()[0])
            raise UserError(
                f"{attribute.name} of {ids[row]} is {float(values[row]):g}, not {allowed} in "
                f"[{low:g}, {high:g}] ({int(bad.sum())} such rows); correct the labels or the range"
            )


def check_finite(latents: Tensor, ids: Sequence[str]) -> None:
    """Raise a UserError if latents (N, *shape) contain NaN or infinity; the message names the first such id."""
    if latents.numel() and torch.stack(latents.aminmax()).isfinite().all():  # the usual case, ten times as fast
        return
    bad = ~latents.flatten(1).isfinite().all(1)
    if bad.any():
        raise UserError(
            f"the latent of {ids[int(bad.nonzero()[0])]} is not finite ({int(bad.sum())} such rows); "
            "check that image and the generator's weights"
        )


def train_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the rows of latents (N, *shape), each (*shape) in float64.

    A dimension that is constant up to float32 rounding gets a deviation of 1, so that it standardizes to 0.
    """
    chunks, n = torch.split(latents, _CHUNK), len(latents)
    mean = torch.stack([c.double().sum(0) for c in chunks]).sum(0) / n
    std = (torch.stack([(c.double() - mean).square().sum(0) for c in chunks]).sum(0) / n).sqrt()
    return mean, torch.where(std > torch.finfo(torch.float32).eps * mean.abs(), std, 1.0)

"""Calibration of classifier heads: a temperature per discrete head, a variance factor per continuous one.

The gain g (one over the temperature) minimizes the mean negative log-likelihood of g times the logits (Guo et al.,
arXiv 1706.04599). That loss is convex in g, so its minimum is found by bisecting the slope, for all noise levels at
once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lcg_lightning.attributes import AttributeSchema

GAIN_RANGE = (0.1, 10.0)
BISECTIONS = 40
MIN_ROWS = 32
"""Noise levels with fewer known labels are not calibrated."""


def fit_calibration(
    outputs: Tensor,
    labels: Tensor,
    bucket: Tensor,
    buckets: int,
    schema: AttributeSchema,
    total: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Tensor, Tensor]:
    """Gain and shift that calibrate classifier outputs in each bucket of noise levels.

    Args:
        outputs: uncalibrated (N, K).
        labels: (N, A), NaN where unknown.
        bucket: (N,) int64 within 0 .. buckets - 1.
        buckets: number of buckets.
        schema: the layout of outputs and labels.
        total: function that sums a tensor over processes.

    Returns:
        gain, shift: (buckets, K); calibrated outputs are outputs * gain[bucket] + shift[bucket].
    """
    gain = outputs.new_ones(buckets, outputs.shape[1])
    shift = outputs.new_zeros(buckets, outputs.shape[1])
    for attribute, target in zip(schema, schema.unit(labels).unbind(1), strict=True):
        head = schema.head(attribute.name)
        known = ~target.isnan()
        out, y, at = outputs[known, head].double(), target[known].double(), bucket[known]
        counts = total(at.bincount(minlength=buckets).double())
        enough = counts >= MIN_ROWS
        if attribute.kind == "continuous":
            error = (y - out[:, 0]).square() * (-out[:, 1]).exp()
            factor = _sums(error, at, buckets, total) / counts
            shift[enough, head.stop - 1] = factor[enough].log().to(shift)
        else:
            slope = _binary_slope if attribute.kind == "binary" else _categorical_slope
            low, high = (torch.full_like(counts, bound).log() for bound in GAIN_RANGE)
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                rising = _sums(slope(out, y, middle.exp()[at]), at, buckets, total) > 0
                low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
            gain[enough, head] = high[enough].exp().to(gain)[:, None]
    return gain, shift


def _sums(values: Tensor, at: Tensor, buckets: int, total: Callable[[Tensor], Tensor]) -> Tensor:
    return total(values.new_zeros(buckets).index_add_(0, at, values))


def _binary_slope(out: Tensor, y: Tensor, gain: Tensor) -> Tensor:
    """Derivative (n,), with respect to the gain (n,), of the negative log-likelihood of logits gain * out (n, 1)."""
    return out[:, 0] * (torch.sigmoid(gain * out[:, 0]) - y)


def _categorical_slope(out: Tensor, y: Tensor, gain: Tensor) -> Tensor:
    """The same for logits gain * out (n, classes)."""
    mean = (torch.softmax(gain[:, None] * out, 1) * out).sum(1)
    return mean - out.gather(1, y.long()[:, None])[:, 0]

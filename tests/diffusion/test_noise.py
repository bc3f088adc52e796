import time

import pytest
import torch

from lcg_lightning.diffusion.noise import sample_noise
from lcg_lightning.errors import UserError


def test_a_row_depends_on_its_own_seed_index_and_draw_only():
    whole = sample_noise(7, range(100), (4, 3), draw=2)
    assert (whole.shape, whole.dtype) == ((100, 4, 3), torch.float32)
    picked = torch.tensor([93, 5, 5, 0])
    assert torch.equal(sample_noise(7, picked, (4, 3), draw=2), whole[picked])
    assert sample_noise(7, [], (4, 3)).shape == (0, 4, 3)
    recorded = [-0.027264223, 0.55558485, -0.42943862]  # a change would change every benchmark record
    torch.testing.assert_close(sample_noise(1, [2], (3,), draw=4), torch.tensor([recorded]))


def test_streams_are_standard_normal_and_independent():
    """Rows that differ in seed, index or draw alone, so adjacent streams are where dependence would show."""
    n, d = 400, 256
    streams = torch.cat(
        [
            sample_noise(0, range(n), (d,)),
            sample_noise(1, range(n), (d,)),
            sample_noise(0, range(n), (d,), draw=1),
            sample_noise(2**63, range(2**40, 2**40 + n), (d,)),
        ]
    ).double()
    assert len(streams.unique(dim=0)) == len(streams)
    total = streams.numel()
    assert abs(streams.mean()) < 4 / total**0.5
    assert abs(streams.var() - 1) < 4 * (2 / total) ** 0.5
    assert abs((streams**4).mean() - 3) < 4 * (96 / total) ** 0.5
    correlation = (streams @ streams.T / d).fill_diagonal_(0)
    pairs = len(streams) * (len(streams) - 1)
    assert abs(correlation.square().sum() / pairs * d - 1) < 0.01  # mean square 1/d when independent
    assert correlation.abs().max() < 6 / d**0.5


def test_seeds_that_would_reach_another_key_are_refused():
    for seed in (-1, 2**64):
        with pytest.raises(UserError, match="seed"):
            sample_noise(seed, [0], (2,))


def test_it_is_fast_enough_not_to_matter():
    start = time.process_time()
    sample_noise(0, range(5000), (64,))
    assert 5000 / (time.process_time() - start) > 5000  # rows per second; an idle core makes 30,000

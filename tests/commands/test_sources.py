"""What ``lcg edit`` edits: latents, and the noise that belongs to each."""

import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.commands.sources import sampled, stored_rows
from lcg_lightning.data.store import LatentStore, Split, write_store
from lcg_lightning.generators.base import Generator


class Noisy(Generator):
    """Latents of width 4, and noise beside them."""

    latent_shape, image_size, noise_shape = (4,), 8, (3,)

    def sample_latents(self, n, generator):
        return torch.randn(n, 4, generator=generator)


def test_noise_belongs_to_the_row_or_to_the_seed_and_number(tmp_path):
    generator, schema = Noisy(), AttributeSchema((Attribute("Hat"),))
    rows = Split(torch.randn(9, 4), torch.arange(9.0)[:, None] % 2, list("abcdefghi"))
    store = LatentStore.open(write_store(tmp_path / "store", {"train": rows}, schema, "0" * 16, {}))
    latents, noise = stored_rows(generator, store, "train", None, 9, "cpu").read(torch.arange(9))
    chosen = stored_rows(generator, store, "train", [7, 2], None, "cpu")
    found = chosen.read(torch.arange(2))
    assert torch.equal(found[0], latents[[7, 2]])
    assert torch.equal(found[1], noise[[7, 2]])
    assert (chosen.count, chosen.words) == (2, "train rows 7, 2")
    five = sampled(generator, 3, 5, "cpu").read(torch.arange(5))
    alone = sampled(generator, 3, None, "cpu").read(torch.tensor([4]))
    assert all(torch.equal(a, b[4:]) for a, b in zip(alone, five, strict=True))
    assert torch.equal(five[1], generator.noise_of(3, torch.arange(5), five[0]))
    assert not torch.equal(five[1], noise[:5])

"""Judges read images in parts; what they read off shared pictures is read once, and never for other pictures."""

import torch
from torch import nn

from lcg_lightning.evaluation.judged import Pictures
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.kept import loaded_once


class Means(nn.Module):
    """Mean of each channel; notes the batches that it is given."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return images.mean((2, 3))


def test_images_are_read_in_order_in_parts_of_at_most_32():
    network, images = Means(), torch.randn(70, 3, 4, 4)
    judge = IdentityNetwork(network, 3, "means", "f")
    torch.testing.assert_close(judge(images), images.mean((2, 3)))
    assert sum(network.sizes) == 70
    assert max(network.sizes) <= 32
    assert judge(images[:0]).shape == (0, 3)


def test_marked_pictures_are_read_once_and_others_each_time():
    network, images = Means(), {"a": torch.randn(2, 3, 4, 4), "b": torch.randn(2, 3, 4, 4), "": torch.zeros(2, 3, 4, 4)}
    judge = IdentityNetwork(network, 3, "means", "f")

    def read(mark):
        pictures = Pictures(torch.zeros(2, 1), lambda rows: images[mark][rows], None, mark)
        torch.testing.assert_close(pictures.embedded(judge), images[mark].mean((2, 3)))
        return len(network.sizes)

    with loaded_once():
        assert [read(mark) for mark in ("a", "b", "a", "b", "", "")] == [1, 2, 2, 2, 3, 4]
    assert read("a") == 5

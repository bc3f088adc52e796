import hashlib

import pytest
import torch
from torch import nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats.fingerprint import fingerprint
from lcg_lightning.generators.base import Generator


class Decoder(Generator):
    latent_shape = (4,)
    image_size = 1

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList()
        self.layers.append(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))

    def decode(self, latents):
        return self.layers[0](latents)[:, :, None, None]


def test_generator_is_frozen_and_passes_gradients_to_latents():
    generator = Decoder()
    outer = nn.ModuleDict({"generator": generator}).train()
    assert outer.training
    assert not any(m.training for m in generator.modules())
    assert not any(p.requires_grad for p in generator.parameters())
    latents = torch.randn(2, 4, requires_grad=True)
    generator.decode(latents).sum().backward()
    assert latents.grad.abs().sum() > 0


def test_fingerprint_is_of_names_shapes_and_bytes():
    layer = nn.Linear(2, 1)
    digest = hashlib.sha256()
    for name, shape in (("bias", "(1,)"), ("weight", "(1, 2)")):
        digest.update(f"{name} torch.float32 {shape}\n".encode() + getattr(layer, name).detach().numpy().tobytes())
    assert fingerprint(layer) == digest.hexdigest()[:16]
    generator = Decoder()
    before = generator.fingerprint
    assert (generator.fingerprint, fingerprint(generator)) == (before, before)
    generator.layers[0][1].running_mean[1] += 1e-6
    assert fingerprint(generator) != before


def test_what_a_generator_cannot_do_is_one_line():
    with pytest.raises(UserError, match=r"^this generator \(Decoder\) cannot encode images; [^\n]*$"):
        Decoder().encode(torch.zeros(1, 3, 1, 1))
    with pytest.raises(UserError, match=r"^this generator \(Decoder\) cannot sample latents; [^\n]*$"):
        Decoder().sample_latents(1, torch.Generator())

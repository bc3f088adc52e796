"""Fingerprints: short hashes of weights and of what outputs depend on."""

import hashlib

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """Short hash of a network's weights: 16 hexadecimal digits of a sha256.

    It covers the names, types, shapes and bytes of the state dict, so it does not depend on the device, and
    two networks share it only if every weight is the same.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def combine(*parts: object) -> str:
    """One fingerprint of several, and of plain values that outputs depend on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

"""Fingerprints: short hashes of weights and of everything else that outputs depend on."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> str:
    """Short hash of a network's weights: the first 16 hexadecimal digits of a SHA-256.

    It covers the names, types, shapes and bytes of the state dict, so it does not depend on the device, and
    two networks share it only if every weight is the same.
    """
    return digest(module.state_dict())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Short hash of tensors with names, dtypes and shapes: the first 16 hexadecimal digits of a SHA-256."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().as_strided((tensor.numel(),), (1,))  # one row may have any stride
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def combine(*parts: object) -> str:
    """One fingerprint from several fingerprints and plain values."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

"""A GPU's rules without a GPU: tensors on a device of their own, beside which the CPU must not wait.

:class:`Accelerator` is a mode in which tensors that were moved to :data:`DEVICE` compute on the CPU, as ever, but may
not meet tensors of the CPU, and in which every operation that would make the CPU wait for a GPU is known.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")
"""Stands for the GPU: PyTorch lets tensors be there everywhere, and gives them no content by itself."""
READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "repeat_interleave"}
"""Operations whose result the CPU reads: what ``.item()``, ``bool(tensor)`` and masks as indices call."""


class Waited(Exception):
    """The CPU would have waited for the GPU."""


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device; ``held`` is its content."""

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=DEVICE)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of the accelerator's block")


class Accelerator(TorchDispatchMode):
    """Within the block, :data:`DEVICE` works."""

    device, watched = DEVICE, False

    @contextlib.contextmanager
    def without_waiting(self):
        """Within the block, an operation for which the CPU would wait raises :class:`Waited`."""
        self.watched, before = True, self.watched
        try:
            yield
        finally:
            self.watched = before

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = function.overloadpacket.__name__
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        here = [x for x in tensors if isinstance(x, OnDevice)]
        assert all(isinstance(x, OnDevice) or not x.is_meta for x in tensors), f"{name}: values made on the device"
        to = kwargs.get("device")
        moves = name == "_to_copy" and to is not None and (to == DEVICE) != bool(here)
        masked = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        if self.watched and here and (masked or name in READS):
            raise Waited(name)
        if self.watched and moves and (here or not kwargs.get("non_blocking")):
            raise Waited("a copy to the CPU" if here else "a copy to the device")
        alien = [x for x in tensors if not isinstance(x, OnDevice) and x.ndim]
        assert not (here and alien) or (name == "index" and not self.watched), f"{name}: tensors on two devices"
        stays = bool(here) if to is None else to == DEVICE
        if to is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
        out = function(*args, **kwargs)
        if name.endswith("_") and here:  # in place
            return tensors[0]
        if name == "_local_scalar_dense":
            return out
        return tree_map_only(torch.Tensor, OnDevice, out) if stays else out

    def place(self, module):
        """Moves a module's parameters and buffers."""
        for part in module.modules():
            for held in (part._parameters, part._buffers):
                held.update({key: OnDevice(x.detach()) for key, x in held.items() if x is not None})
        return module


class Cuda:
    """The same for a GPU, which tells of waiting itself."""

    device = torch.device("cuda")

    @contextlib.contextmanager
    def without_waiting(self):
        """Within the block, PyTorch raises an error where the CPU would wait."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def place(self, module):
        return module.to(self.device)

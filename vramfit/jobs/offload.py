"""Activations that wait in host memory: torch's saved-tensor hooks, as `torch.autograd.graph.save_on_cpu` uses them.

It differs from `save_on_cpu` in what it moves: weights and buffers stay, for they are on the card anyway; what is
small stays; and a tensor that several operations keep goes to the host once.
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from vramfit.jobs.wrapped_forward import WrappedForward

# A smaller tensor saves less than its copy costs.
MINIMUM_BYTES = 1 << 18


class Offloading(WrappedForward):
    """The forward of a network whose saved activations wait on the host, while gradients are computed.

    Known limitations: copies are not overlapped with computing, so a step takes longer by the time that the bytes take
    twice over the bus; the host needs as much free memory. What checkpointed parts recompute is not offloaded.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the network's own forward returns."""
        if not torch.is_grad_enabled():
            return self.own(*args, **kwargs)
        luggage = _Luggage(self.model)
        with torch.autograd.graph.saved_tensors_hooks(luggage.pack, luggage.unpack):
            return self.own(*args, **kwargs)


class _Parked:
    """One saved tensor on the host, and its copy on the card while somebody holds that."""

    def __init__(self, tensor: Tensor) -> None:
        self.device = tensor.device
        self.host = to_host(tensor.detach())
        self._back: weakref.ref[Tensor] | None = None

    def back(self) -> Tensor:
        """The tensor on its device again."""
        there = self._back() if self._back is not None else None
        if there is None:
            there = to_card(self.host, self.device)
            self._back = weakref.ref(there)
        return there


class _Luggage:
    """What one forward pass sent away; each tensor once, however many operations keep it."""

    def __init__(self, model: nn.Module) -> None:
        self._stays = {_address(value) for value in (*model.parameters(), *model.buffers())}
        self._known: dict[Any, tuple[weakref.ref[Any], weakref.ref[_Parked]]] = {}

    def pack(self, tensor: Tensor) -> "Tensor | _Parked":
        """The tensor itself where it stays, else what stands for it."""
        size = tensor.numel() * tensor.element_size()
        if size < MINIMUM_BYTES or tensor.layout is not torch.strided or _address(tensor) in self._stays:
            return tensor
        storage = tensor.untyped_storage()
        key = (_address(tensor), tensor.storage_offset(), tensor.size(), tensor.stride(), tensor.dtype, tensor._version)
        known = self._known.get(key)
        # An address is used again once its storage is gone.
        parked = known[1]() if known is not None and known[0]() is storage else None
        if parked is None:
            parked = _Parked(tensor)
            self._known[key] = weakref.ref(storage), weakref.ref(parked)
        return parked

    @staticmethod
    def unpack(packed: "Tensor | _Parked") -> Tensor:
        """The tensor on its device."""
        return packed.back() if isinstance(packed, _Parked) else packed


def to_host(tensor: Tensor) -> Tensor:
    """A tensor's copy on the host, page-locked where it comes from a card."""
    host = torch.empty_strided(
        tensor.size(), tensor.stride(), dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda"
    )
    return host.copy_(tensor)


def to_card(host: Tensor, device: torch.device) -> Tensor:
    """The copy of a host tensor on a device."""
    back = torch.empty_strided(host.size(), host.stride(), dtype=host.dtype, device=device)
    return back.copy_(host, non_blocking=True)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

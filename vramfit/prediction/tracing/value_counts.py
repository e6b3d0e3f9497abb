"""How many different values a tensor on the card holds at most, where its values are not known.

A position among C is one of C values, a comparison one of two, a remainder one of its divisor's. What chooses or copies
elements adds none, and what computes element by element makes at most one of each combination. Integers alone are
followed: of activations all values are different. Lengths that are assumed are remembered too.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.tensor_trees import tensors_in

_ATEN = torch.ops.aten
_OF_DTYPE = {torch.bool: 2, torch.uint8: 256, torch.int8: 256}
_COUNTED = 1 << 16  # known values up to so many are counted
# Their results are elements of their first argument.
_CHOOSING = {
    *(_ATEN.index, _ATEN.gather, _ATEN.index_select, _ATEN.masked_select, _ATEN.take, _ATEN.clone, _ATEN._to_copy),
    *(_ATEN.repeat, _ATEN.flip, _ATEN.roll, _ATEN._unique2),
}
# So is the first of their results; how many rows or runs there are, which others number, is not known.
_CHOOSING_FIRST = {_ATEN.unique_dim, _ATEN.unique_consecutive}
# The last of their results are positions along a dimension; of two results, where there may be one.
_POSITIONS = {
    *(_ATEN.argmax, _ATEN.argmin, _ATEN.argsort, _ATEN.max, _ATEN.min, _ATEN.sort, _ATEN.topk, _ATEN.kthvalue),
    *(_ATEN.mode, _ATEN.median, _ATEN.nanmedian, _ATEN.cummax, _ATEN.cummin),
}


class ValueCounts:
    """Counts by the addresses of storages.

    `known` gives the values of a tensor on the host, None where there are none, and `assumed` says what they rest on.
    """

    def __init__(self, known: Callable[[Tensor], Tensor | None], assumed: Callable[[list[Tensor]], str]) -> None:
        self._known = known
        self._assumed = assumed
        self._counts: dict[int, int] = {}
        self._assumed_lengths: set[int] = set()

    def drop(self, address: int) -> None:
        """Forget a storage that is gone, or was written into."""
        self._counts.pop(address, None)
        self._assumed_lengths.discard(address)

    def has_assumed_length(self, tensor: Tensor) -> bool:
        """Whether it is assumed how many elements a tensor has."""
        return _address(tensor) in self._assumed_lengths

    def of(self, tensor: Tensor) -> int:
        """The most different values that a tensor holds."""
        count = self._counts.get(_address(tensor), _OF_DTYPE.get(tensor.dtype))
        if count is None and tensor.numel() <= _COUNTED and not self._assumed([tensor]):
            values = self._known(tensor)
            count = None if values is None else int(values.unique().numel())
        return tensor.numel() if count is None else min(count, tensor.numel())

    def follow(self, func: Any, args: tuple[Any, ...], given: list[Tensor], out: list[Tensor]) -> None:
        """Count the values of an operation's new results."""
        if self._assumed_lengths and any(map(self.has_assumed_length, given)):
            self.assume_lengths(out)
        whole = [tensor for tensor in out if not (tensor.is_floating_point() or tensor.is_complex())]
        if not whole:
            return
        count = self._counted(func, args, given)
        if func.overloadpacket in _CHOOSING_FIRST:
            whole = [tensor for tensor in whole if tensor is out[0]]
        for tensor in whole if func.overloadpacket in _CHOOSING else whole[-1:]:
            if count is not None and count < tensor.numel():
                self._counts[_address(tensor)] = count

    def assume_lengths(self, tensors: list[Tensor]) -> None:
        """Remember that it is assumed how many elements these have."""
        self._assumed_lengths |= {_address(tensor) for tensor in tensors}

    def _counted(self, func: Any, args: tuple[Any, ...], given: list[Tensor]) -> int | None:
        packet = func.overloadpacket
        count: int | None = None
        if packet in _POSITIONS and (len(func._schema.returns) == 2 or packet.__name__.startswith("arg")):
            count = _length(args, 2 if packet in (_ATEN.topk, _ATEN.kthvalue) else 1)
        elif packet is _ATEN.nonzero:
            count = max(args[0].shape, default=1)
        elif packet is _ATEN.remainder and isinstance(args[1], int):
            count = abs(args[1])
        elif packet in _CHOOSING or packet in _CHOOSING_FIRST:
            count = self.of(args[0])
        elif packet in (_ATEN.cat, _ATEN.stack, _ATEN.where):
            count = sum(map(self.of, tensors_in(args[packet is _ATEN.where :])))
        elif torch.Tag.pointwise in func.tags and given:
            count = prod(map(self.of, given))
        return count


def _length(args: tuple[Any, ...], place: int) -> int:
    """The length of the dimension that is searched, whose number is at a place; the most it can be, where it is not."""
    dim = args[place] if len(args) > place else None
    if isinstance(dim, int) and not isinstance(dim, bool) and args[0].dim():
        return int(args[0].shape[dim])
    return int(args[0].numel())


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

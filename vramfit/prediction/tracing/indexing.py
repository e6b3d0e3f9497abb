"""What CUDA's kernels hold while they index: positions of masks, sorted indices, running sums. Bytes.

A mask becomes the positions of what it keeps, a whole number for each of its dimensions (`expandTensors` in
IndexingUtils.h, masked_select in cuda/IndexKernel.cpp). Where indices may repeat, as in the backward pass of
`x[index]`, they are sorted first (`index_put_with_sort_kernel` in cuda/Indexing.cu). `masked_scatter` counts along its
mask.

N indices, or elements that a mask keeps. All that a mask may keep is taken where its result does not say.

Known limitations: what `sort`, `topk`, `unique` and the backward pass of an embedding hold is not counted.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_WHOLE_BYTES = 8
_MASKS = (torch.bool, torch.uint8)
_SORTED = 4  # the indices, their order before, and both after
_SORTING = 2  # what the radix sort keeps of keys and of values between its passes


def _masked_select(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Positions of all that a mask keeps."""
    shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
    return [shape.numel() * max(1, len(shape)) * _WHOLE_BYTES]


def _masked_scatter(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """How many elements the mask keeps before each, the mask at its full size and the source in order."""
    value, mask, source = args[:3]
    count = torch.broadcast_shapes(value.shape, mask.shape).numel()
    mask_bytes = 0 if mask.numel() == count and mask.is_contiguous() else count
    return [count * _WHOLE_BYTES, mask_bytes, 0 if source.is_contiguous() else _bytes(source)]


def _index_put(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Positions of masks, and where values are added up all that sorting the indices takes."""
    value, indices, written = args[:3]
    masked = sum(index.dim() for index in indices if index is not None and index.dtype in _MASKS)
    accumulates = len(args) > 3 and args[3]
    if not accumulates and (not masked or _is_filled_in(written)):
        return []
    count = _index_count(value, indices, written)
    if not accumulates:
        return [masked * count * _WHOLE_BYTES]
    rest = prod(value.shape) // max(1, prod(_indexed_lengths(value, indices)))
    in_order = written.is_contiguous() and written.numel() == count * rest
    return [
        max(_SORTED, masked + 1) * count * _WHOLE_BYTES,
        _SORTING * count * _WHOLE_BYTES,
        0 if in_order else count * rest * value.element_size(),
        0 if _is_adjacent(indices) else _bytes(value),
    ]


def _is_filled_in(written: Tensor) -> bool:
    """Whether what is written where a mask is true is one number of the host's: `canDispatchToMaskedFill`.

    In a backward pass zero is written, of which a trace does not know the place: taken for the host's, as mostly.
    """
    in_backward = torch._C._current_autograd_node() is not None
    return written.numel() == 1 and (in_backward or not written.is_cuda)


def _index_count(value: Tensor, indices: Sequence[Tensor | None], written: Tensor) -> int:
    """Indices, once they are broadcast; with a mask as many as values are written, or as it has elements."""
    given = [index for index in indices if index is not None]
    masks = [index for index in given if index.dtype in _MASKS]
    if not masks:
        return int(torch.broadcast_shapes(*(index.shape for index in given)).numel())
    rest = prod(value.shape) // max(1, prod(_indexed_lengths(value, indices)))
    said = written.numel() // max(1, rest)
    return said if said > 1 else max(mask.numel() for mask in masks)


def _indexed_lengths(value: Tensor, indices: Sequence[Tensor | None]) -> list[int]:
    """Lengths of the dimensions that are indexed; a mask stands for as many as it has."""
    lengths: list[int] = []
    place = 0
    for index in indices:
        dims = index.dim() if index is not None and index.dtype in _MASKS else 1
        lengths += value.shape[place : place + dims] if index is not None else ()
        place += dims
    return lengths


def _is_adjacent(indices: Sequence[Tensor | None]) -> bool:
    """Whether no dimension between two that are indexed is left whole: `hasContiguousSubspace` in IndexingUtils.h."""
    given = [place for place, index in enumerate(indices) if index is not None]
    return not given or given[-1] - given[0] + 1 == len(given)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# By operation; each takes its arguments and a compute capability.
WORKSPACES: dict[Any, Callable[[tuple[Any, ...], tuple[int, int]], list[int]]] = {
    _ATEN.masked_select.default: _masked_select,
    _ATEN.masked_scatter.default: _masked_scatter,
    _ATEN.masked_scatter_.default: _masked_scatter,
    _ATEN.index_put.default: _index_put,
    _ATEN.index_put_.default: _index_put,
    _ATEN._index_put_impl_.default: _index_put,
}

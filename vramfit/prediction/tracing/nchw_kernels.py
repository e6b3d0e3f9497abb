"""Kernels that work in one memory order alone: what they copy while they run, and in which order their results lie.

Each rule is read off torch's sources in aten/src/ATen/native/cuda. An NHWC image is copied into NCHW order where a
kernel counts through planes of pixels (padding by reflection, adaptive maxima, unfolding) or along a dimension (running
sums, rolling). Pooling works in either order, and copies a gradient that does not lie as its image does.

Known limitations, for those sources were not read: what `sort` copies to sort along other dimensions than the last;
nearest upsampling of fewer than four channels in NHWC order; pooling in three dimensions.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

_ATEN = torch.ops.aten
_INDEX_BYTES = 8
Rule = Callable[[tuple[Any, ...], tuple[int, int]], list[int]]


def made_contiguous(*places: int) -> Rule:
    """The rule of a kernel that copies those of its arguments, by their places, that are not contiguous."""

    def rule(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
        return [_bytes(args[place]) for place in places if not args[place].is_contiguous()]

    return rule


def _pooled(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """The copy of an image that lies in neither order (DilatedMaxPool2d.cu, AveragePool2d.cu)."""
    return _not_in_order(args[0], suggest_memory_format(args[0]))


def _pooled_backward(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """The copy of a gradient that does not lie as its image does."""
    return _not_in_order(args[0], suggest_memory_format(args[1]))


def _adaptive_maxima(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Copies of an NHWC image and of both results (AdaptiveMaxPooling2d.cu)."""
    value, size = args[:2]
    if value.is_contiguous():
        return []
    pooled = value.shape[:-2].numel() * size[0] * size[1]
    return [_bytes(value), pooled * value.element_size(), pooled * _INDEX_BYTES]


def _adaptive_maxima_backward(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Copies of the gradient and of the indices, and the gradient of an NHWC image once more."""
    gradient, value, indices = args[:3]
    return [_bytes(one) for one in (gradient, value, indices) if not one.is_contiguous()]


def _roll(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """A tensor is rolled along one dimension after another, and copied first if it is not contiguous.

    `roll_common` in TensorTransformations.h, `roll_cuda` in cuda/TensorTransformations.cu.
    """
    value, dims = args[0], args[2] if len(args) > 2 else ()
    return [_bytes(value)] * max(len(dims) - 1, int(not value.is_contiguous()))


def _not_in_order(tensor: Tensor, order: torch.memory_format) -> list[int]:
    return [] if tensor.is_contiguous(memory_format=order) else [_bytes(tensor)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _pixel_unshuffle(value: Tensor, factor: int) -> Tensor:
    """Contiguous on a card (`math_pixel_unshuffle` in PixelShuffle.cpp); torch's meta kernel keeps NHWC."""
    *batch, channels, height, width = value.shape
    return value.new_empty((*batch, channels * factor**2, height // factor, width // factor))


def _glu_backward(_: Tensor, value: Tensor, __: int) -> Tensor:
    """Contiguous (`glu_backward_cuda` in cuda/Activation.cpp); torch's meta kernel keeps NHWC."""
    return value.new_empty(value.shape)


META_KERNELS: dict[Any, Callable[..., Any]] = {
    _ATEN.pixel_unshuffle.default: _pixel_unshuffle,
    _ATEN.glu_backward.default: _glu_backward,
}
WORKSPACES: dict[Any, Rule] = {
    # ReflectionPad.cu, Im2Col.cu, Col2Im.cu, MaxUnpooling.cu, ScanUtils.cuh, CumsumKernel.cu and its like
    **dict.fromkeys(
        (
            *(_ATEN.reflection_pad1d.default, _ATEN.reflection_pad2d.default, _ATEN.reflection_pad3d.default),
            *(_ATEN.reflection_pad1d_backward.default, _ATEN.reflection_pad2d_backward.default),
            *(_ATEN.im2col.default, _ATEN.col2im.default),
            *(_ATEN.cumsum.default, _ATEN.cumprod.default, _ATEN.cummax.default, _ATEN.cummin.default),
            *(_ATEN.logcumsumexp.default, _ATEN._logcumsumexp.default),
        ),
        made_contiguous(0),
    ),
    _ATEN.max_unpool2d.default: made_contiguous(0, 1),
    _ATEN.roll.default: _roll,
    _ATEN.adaptive_max_pool2d.default: _adaptive_maxima,
    _ATEN.adaptive_max_pool2d_backward.default: _adaptive_maxima_backward,
    _ATEN.max_pool2d_with_indices.default: _pooled,
    _ATEN.avg_pool2d.default: _pooled,
    _ATEN._adaptive_avg_pool2d.default: _pooled,
    _ATEN.max_pool2d_with_indices_backward.default: _pooled_backward,
    _ATEN.avg_pool2d_backward.default: _pooled_backward,
    _ATEN._adaptive_avg_pool2d_backward.default: _pooled_backward,
}

"""The memory order in which cuDNN runs a convolution, and what it copies for that."""

from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

_WIDE = (torch.float64, torch.complex64, torch.complex128)


def convolution_format(image: Tensor, weight: Tensor) -> torch.memory_format:
    """NHWC (or NDHWC) if the image or the weight is, by its strides; else NCHW.

    `cudnn_conv_suggest_memory_format` in torch's ConvUtils.h. A contiguous 1x1 kernel counts as NCHW, and float64 is
    always NCHW.
    """
    if image.dtype in _WIDE or image.dim() != weight.dim():
        return torch.contiguous_format
    for tensor in (image, weight):
        order = suggest_memory_format(tensor)
        if order is not torch.contiguous_format:
            return order
    return torch.contiguous_format


def forward_workspace(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Bytes of the copies of an image and a weight that do not lie in a convolution's order.

    `cudnn_convolution_forward` in torch's ConvShared.cpp.
    """
    return _copies(*args[:2])


def backward_workspace(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """The same of the gradient of the result, the image and the weight."""
    gradient, image, weight = args[:3]
    return _copies(image, weight, gradient)


def _copies(image: Tensor, weight: Tensor, *more: Tensor) -> list[int]:
    order = convolution_format(image, weight)
    given = (image, weight, *more)
    return [one.numel() * one.element_size() for one in given if not one.is_contiguous(memory_format=order)]

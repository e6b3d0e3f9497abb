"""The memory order in which cuDNN runs a convolution."""

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

"""Batch normalization on a card: cuDNN's, which copies what is not in its memory order, or CUDA's own.

Which one runs is `_select_batch_norm_backend` in aten/src/ATen/native/Normalization.cpp; what cuDNN's copies is
aten/src/ATen/native/cudnn/BatchNorm.cpp. B batch, C channels.

Known limitation: cuDNN's reserve of an NHWC input is not counted; it is small where no activation is fused.
"""

from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

_ATEN = torch.ops.aten


def batch_norm(  # noqa: PLR0917  # the signature of torch's own
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """Normalize each channel of (B, C, ...); cuDNN's input is in the order of memory that it suggests, and kept so."""
    if cudnn_enabled and bias is not None and _in_cudnn(value, weight):
        value = value.contiguous(memory_format=suggest_memory_format(value))
    result: Tensor = _ATEN.native_batch_norm.default(value, weight, bias, mean, variance, training, momentum, eps)[0]
    return result


def backward(gradient: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    """The gradients; that of the input lies in the input's memory order, while torch's meta kernel has the gradient's.

    For meta tensors.
    """
    ordered = gradient.contiguous(memory_format=suggest_memory_format(value))
    result: tuple[Tensor | None, ...] = _ATEN.native_batch_norm_backward.default(ordered, value, *rest)
    return result


def backward_workspace(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """Bytes of cuDNN's copy of a gradient that is not in its input's memory order."""
    gradient, value, weight = args[:3]
    if not _in_cudnn(value, weight) or gradient.is_contiguous(memory_format=suggest_memory_format(value)):
        return []
    return [gradient.numel() * gradient.element_size()]


def _in_cudnn(value: Tensor, weight: Tensor | None) -> bool:
    if weight is None or value.dim() < 3 or torch.bfloat16 in (value.dtype, weight.dtype):
        return False
    return value.dtype != torch.float16 or weight.dtype == torch.float32

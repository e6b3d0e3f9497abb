"""Operations that a card runs as one kernel and a CPU as another, or as several: what the card would run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.attention import CUDNN_ATTENTION, SMALL_SHARED_MEMORY, Attention
from vramfit.prediction.tracing.batch_norm import batch_norm
from vramfit.prediction.tracing.fourier import fourier_kernels
from vramfit.prediction.tracing.recurrent import recurrent_kernels
from vramfit.prediction.tracing.workspaces import MUCH_SHARED_MEMORY

_ATEN = torch.ops.aten
# The compute capability that is taken where none is given: that of GeForce RTX 30.
AMPERE = (8, 6)


def kernel_class(capability: tuple[int, int]) -> tuple[int | bool, ...]:
    """What decides the kernels of a trace: cards of one class leave the same trace of any job."""
    return (
        min(max(capability[0], 6), 8),
        capability[0] in CUDNN_ATTENTION,
        capability in SMALL_SHARED_MEMORY,
        capability in MUCH_SHARED_MEMORY,
    )


def cuda_kernels(capability: tuple[int, int]) -> dict[str, Callable[..., Any]]:
    """What a card of that compute capability runs, by the operation's name."""
    attention = Attention(capability)
    return {
        "dropout": dropout,
        "batch_norm": batch_norm,
        "group_norm": group_norm,
        "scaled_dot_product_attention": attention,
        **fourier_kernels(),
        **recurrent_kernels(),
    }


def dropout(value: Tensor, probability: float, train: bool) -> Tensor:
    """A card drops out in one kernel that keeps a mask of bytes; a CPU keeps one of the value's own dtype."""
    if train and 0 < probability < 1:
        result: Tensor = _ATEN.native_dropout.default(value, probability, True)[0]
        return result
    return value * value.new_zeros(()) if train and probability == 1 else value


def group_norm(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A card normalizes groups in NCHW order, a CPU in the order of its input (`group_norm` in group_norm.cpp).

    So an NHWC input is copied, and in the backward pass the gradient. True of torch up to 2.11.
    """
    result: Tensor = _ATEN.group_norm.default.decompose(value.contiguous(), *args, **kwargs)
    return result

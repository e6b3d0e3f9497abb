"""What losses hold while they run: torch composes them of operations that a trace sees as one. Bytes.

A loss that is averaged is computed element by element first (`mse_loss_out`, `smooth_l1_loss_out` and `huber_loss` in
aten/src/ATen/native/Loss.cpp, `binary_cross_entropy_out_cuda` in cuda/Loss.cu). With logits the logarithm of the
sigmoid is beside it. `logsumexp` holds the exponentials (`logsumexp_out_impl` in ReduceOps.cpp).

Known limitation: `binary_cross_entropy` keeps the memory of its elements behind the one number that it returns.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.op_schema import with_defaults

_ATEN = torch.ops.aten
_NONE = 0  # reductions, as at::Reduction numbers them: none, mean, sum
_REDUCTION = {
    _ATEN.mse_loss.default: 2,
    _ATEN.smooth_l1_loss.default: 2,
    _ATEN.huber_loss.default: 2,
    _ATEN.binary_cross_entropy.default: 3,
    _ATEN.binary_cross_entropy_with_logits.default: 4,
}


def _elements(func: Any) -> Callable[[tuple[Any, ...], tuple[int, int]], list[int]]:
    """The rule of a loss: its elements, where they are averaged or summed."""

    def rule(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
        size = _broadcast_bytes(*args[:2])
        reduced = with_defaults(func, args)[_REDUCTION[func]] != _NONE
        logarithms = func is _ATEN.binary_cross_entropy_with_logits.default
        return [size] * (reduced + logarithms)

    return rule


def _exponentials(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    return [args[0].numel() * args[0].element_size()]


def _broadcast_bytes(one: Tensor, other: Tensor) -> int:
    count = int(torch.broadcast_shapes(one.shape, other.shape).numel())
    return count * torch.promote_types(one.dtype, other.dtype).itemsize


# By operation; each takes its arguments and a compute capability.
WORKSPACES: dict[Any, Callable[[tuple[Any, ...], tuple[int, int]], list[int]]] = {
    **{func: _elements(func) for func in _REDUCTION},
    _ATEN.logsumexp.default: _exponentials,
}

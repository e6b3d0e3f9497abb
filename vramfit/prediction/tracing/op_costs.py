"""What an operation costs beside its tensors: floating-point operations, and the shapes behind a workspace."""

from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, shape_wrapper

from vramfit.prediction.trace_records import Convolution, Reduction
from vramfit.prediction.tracing import recurrent
from vramfit.prediction.tracing.memory_format import convolution_format
from vramfit.prediction.tracing.quantized import flops_of_product

_FORWARD = torch.ops.aten.convolution.default
_BACKWARD = torch.ops.aten.convolution_backward.default
_SUMS = {torch.ops.aten.sum.dim_IntList, torch.ops.aten.mean.dim}
_FLOAT_BYTES = 4
# Of operations that torch has no formula for.
_FLOPS: dict[Any, Any] = {
    torch.ops.aten._cudnn_rnn.default: shape_wrapper(recurrent.flops),
    torch.ops.aten._cudnn_rnn_backward.default: shape_wrapper(recurrent.flops_backward),
}


def flops_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """FLOP of matrix products, convolutions and attention by torch's own formulas; 0 for what only moves bytes.

    A multiply-add counts as two.
    """
    formula = _FLOPS.get(func) or flop_registry.get(func.overloadpacket)
    try:
        return int(formula(*args, **kwargs, out_val=out)) if formula else flops_of_product(func.name(), args)
    except AssertionError:  # the formulas of attention know one order of the dimensions
        return 0


def convolution_of(func: Any, args: tuple[Any, ...], out: Any) -> Convolution | None:
    """The shape of a convolution, forward or backward; None for any other operation."""
    if func is _FORWARD:
        x, weight, result, rest, made = args[0], args[1], out, args[3:], (False, False)
    elif func is _BACKWARD:
        x, weight, result, rest = args[1], args[2], args[0], args[4:]  # the result's shape is its gradient's
        made = tuple(args[10][:2])
    else:
        return None
    stride, _, dilation, transposed, _, groups = rest[:6]
    return Convolution(
        input_shape=tuple(x.shape),
        weight_shape=tuple(weight.shape),
        output_shape=tuple(result.shape),
        groups=int(groups),
        transposed=bool(transposed),
        channels_last=convolution_format(x, weight) is not torch.contiguous_format,
        stride=tuple(stride),
        dilation=tuple(dilation),
        image_gradient=bool(made[0]),
        weight_gradient=bool(made[1]),
    )


def reduction_of(func: Any, args: tuple[Any, ...]) -> Reduction | None:
    """The shape of a sum or mean over the first dimensions of a contiguous tensor; None for any other operation."""
    if func not in _SUMS or not args[0].is_floating_point() or args[0].element_size() > _FLOAT_BYTES:
        return None
    value, dims = args[0], args[1] if len(args) > 1 else None
    summed = sorted(dim % value.dim() for dim in dims or () if value.dim())
    leading = 0 < len(summed) < value.dim() and summed == list(range(len(summed)))
    if not leading or not value.is_contiguous() or value.numel() == 0:
        return None
    rows = value.shape[: len(summed)].numel()
    return Reduction(rows, value.numel() // rows)

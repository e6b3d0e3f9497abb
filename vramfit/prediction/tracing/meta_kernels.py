"""What CUDA's kernels return where torch's own meta kernels are missing, or answer for another device.

Found by `benchmarks/kernel_coverage.py`, which sets every operator that torch tests beside its CUDA form.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing import batch_norm, fourier, nchw_kernels, recurrent

_ATEN = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)


def _log_sigmoid(value: Tensor) -> tuple[Tensor, Tensor]:
    """CUDA computes the exponential again in the backward pass; a CPU keeps it (LogSigmoidKernel in Activation.cpp)."""
    return torch.empty_like(value), value.new_empty(0)


def _rms_norm(value: Tensor, shape: list[int], *_: Any) -> tuple[Tensor, Tensor]:
    """The result, and one number a row in float32 (layer_norm_kernel.cu)."""
    rows = (*value.shape[: value.dim() - len(shape)], *(1 for _ in shape))
    dtype = torch.float32 if value.dtype in _HALF else value.dtype
    return torch.empty_like(value, memory_format=torch.contiguous_format), value.new_empty(rows, dtype=dtype)


def _rms_norm_of_host(
    value: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None
) -> tuple[Tensor, Tensor]:
    """The values of a tensor on the host, and the reciprocal of each row's root mean square."""
    rows = list(range(-len(shape), 0))
    inverse = (
        value.float().square().mean(rows, keepdim=True) + (torch.finfo(value.dtype).eps if eps is None else eps)
    ).rsqrt()
    normed = (value * inverse).to(value.dtype)
    return normed if weight is None else normed * weight, inverse


# Whole operations on CUDA that a CPU composes: with a kernel of its own, a CPU's tensors have their autograd formula.
FUSED: dict[str, Callable[..., Any]] = {"_fused_rms_norm": _rms_norm_of_host}


def _grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,  # noqa: ARG001  # the signature of torch's own
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Products of groups of rows, of columns or of whole matrices, in any floating dtype; torch's takes half alone.

    [M, K] x [G, K, N] -> [M, N]; [M, K] x [K, N] -> [G, M, N]; [G, M, K] x [K, N] -> [M, N]; [G, M, K] x [G, K, N].
    """
    rows, columns = a.shape[-2], b.shape[-1]
    if a.dim() == b.dim():
        groups = [a.shape[0]] if a.dim() == 3 else [] if offs is None else [offs.shape[0]]
        return a.new_empty([*groups, rows, columns], dtype=out_dtype or a.dtype)
    return a.new_empty([rows, columns], dtype=out_dtype or a.dtype)


def _batch_norm_stats(value: Tensor, _: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of each channel (batch_norm_stats_cuda in Normalization.cu), as below."""
    return _channels(value), _channels(value)


def _batch_norm_gather(value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _channels(value), _channels(value)


def _batch_norm_elemt(value: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(value)


def _batch_norm_backward_reduce(gradient: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    """Sums over each channel: of the gradient, of its product with the input, and the gradients of weight and bias.

    `rest` are the input, its mean and inverse deviation, the weight, and which of the results are wanted.
    """
    weight, wants_input, wants_weight, wants_bias = rest[3:]
    sums = _channels(gradient) if wants_input else None
    products = _channels(gradient) if wants_input else None
    shape = _channels(gradient) if weight is None else weight
    return sums, products, *(torch.empty_like(shape) if wanted else None for wanted in (wants_weight, wants_bias))


def _batch_norm_backward_elemt(gradient: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(gradient)


def _channels(value: Tensor) -> Tensor:
    """A number for each channel, of half precision in float32."""
    return value.new_empty(value.shape[1], dtype=torch.float32 if value.dtype in _HALF else value.dtype)


# What a card runs for them could not be compared: a CPU's results are taken, and a prediction says so.
UNKNOWN = {
    "geqrf",
    "linalg_lstsq",
    "_batch_norm_with_update",
    "_sparse_mm_reduce_impl",
    "sparse_sampled_addmm",
    "_to_sparse",
    "_histogramdd_bin_edges",
    "histogram",
}
# Sizes that only cuDNN knows, and what is taken for them.
TAKEN_FOR_CUDNN = {
    "_cudnn_rnn": "cuDNN keeps of a recurrent layer what version 6 was published to keep",
    "_scaled_dot_product_cudnn_attention_backward": "cuDNN's attention takes backward what FlashAttention's does",
}
# Libraries of operators whose results are known, and that take nothing worth counting while they run.
_KNOWN_NAMESPACES = {"aten", "prims", "prim", "torchvision", "bitsandbytes", "c10d", "_c10d_functional", "fsdp"}


@cache
def unknown_of(func: Any) -> str:
    """What is not known of an operation's memory on a card, in words; "" if it is known."""
    if func.namespace not in _KNOWN_NAMESPACES:
        return f"{func.namespace}::{func.overloadpacket.__name__} takes no memory beside its results"
    if func.overloadpacket.__name__ in UNKNOWN:
        return f"{func.overloadpacket.__name__} takes on a card what it takes on a CPU"
    return TAKEN_FOR_CUDNN.get(func.overloadpacket.__name__, "")


META_KERNELS: dict[Any, Callable[..., Any]] = {
    **recurrent.META_KERNELS,
    **fourier.META_KERNELS,
    **nchw_kernels.META_KERNELS,
    _ATEN.log_sigmoid_forward.default: _log_sigmoid,
    _ATEN._fused_rms_norm.default: _rms_norm,
    _ATEN._grouped_mm.default: _grouped_mm,
    _ATEN.native_batch_norm_backward.default: batch_norm.backward,
    _ATEN.batch_norm_stats.default: _batch_norm_stats,
    _ATEN.batch_norm_gather_stats_with_counts.default: _batch_norm_gather,
    _ATEN.batch_norm_elemt.default: _batch_norm_elemt,
    _ATEN.batch_norm_backward_reduce.default: _batch_norm_backward_reduce,
    _ATEN.batch_norm_backward_elemt.default: _batch_norm_backward_elemt,
}

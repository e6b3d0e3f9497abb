"""Memory that a kernel takes while it runs and gives back when it is done, beside its results. Bytes.

FlashAttention's is that of flash_attn/flash_api.cpp (`mha_bwd`), the memory-efficient kernel's that of
mem_eff_attention/kernel_forward.h and kernel_backward.h. What cuDNN's attention takes is not published: its backward
pass sums the gradient of the queries in float32 as FlashAttention's does, and is taken to need as much.

B batch, N heads, L queries, S keys, E width of a head.

Known limitations: the forward pass of FlashAttention with few rows splits the keys, and so does the memory-efficient
backward pass; both are small. Deterministic algorithms take more.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing import batch_norm, indexing, losses, memory_format, nchw_kernels, quantized, recurrent
from vramfit.prediction.tracing.nchw_kernels import Rule, made_contiguous

_ATEN = torch.ops.aten
_FLOAT_BYTES = 4
_HALF = (torch.float16, torch.bfloat16)
_FLASH_ROWS = 128  # queries are summed in blocks of as many
# What the memory-efficient kernel holds of a row's output in registers.
_EFFICIENT_IN_REGISTERS = 128
# These can give the memory-efficient backward pass blocks of 128 queries where a head is wider than 64.
MUCH_SHARED_MEMORY = ((8, 0), (9, 0), (10, 0), (10, 3))


def workspaces_of(func: Any, args: tuple[Any, ...], capability: tuple[int, int]) -> list[int]:
    """Bytes of each block that an operation holds beside its results, on a card of that compute capability."""
    rule = _RULES.get(func)
    if rule is not None:
        return rule(args, capability)
    named = quantized.WORKSPACES.get(func.name())
    return named(args) if named else []


def _flash_backward(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    grad, query, key, value, out = args[:5]
    batch, heads, queries, width = query.shape
    rows = _rounded(queries, _FLASH_ROWS)
    summed = _rounded(width, 32) if width <= 192 else 256
    taken = [_copied(grad), _copied(out)]
    taken += [batch * heads * rows * _FLOAT_BYTES, batch * rows * heads * summed * _FLOAT_BYTES]
    return taken + _by_group(query, key, value)


def _cudnn_backward(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    grad, query, _key, _value, out = args[:5]
    like_out = 0 if grad.stride() == out.stride() else _bytes(grad)
    return [like_out, prod(query.shape[:3]) * _FLOAT_BYTES, query.numel() * _FLOAT_BYTES]


def _efficient_forward(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    query, key, value = args[:3]
    wide = query.dtype in _HALF and value.shape[-1] > _EFFICIENT_IN_REGISTERS
    summed = prod(query.shape[:3]) * value.shape[-1] * _FLOAT_BYTES if wide else 0
    return [summed, *_by_group(query, key, value)]


def _efficient_backward(args: tuple[Any, ...], capability: tuple[int, int]) -> list[int]:
    grad, query, key, value, _bias, out = args[:6]
    rows = prod(query.shape[:3])
    taken = [_copied(grad), rows * _FLOAT_BYTES]
    if query.dtype in _HALF:
        taken.append(_efficient_sums(query, value, capability))
    else:
        taken.append(out.numel() * _FLOAT_BYTES)  # gradient times output, before it is summed over a row
    return taken + 2 * _by_group(query, key, value)


def _efficient_sums(query: Tensor, value: Tensor, capability: tuple[int, int]) -> int:
    """Sums of the gradients in float32: of all queries, and of one block of keys where a head fills no registers."""
    batch, heads, queries, width = query.shape
    widest = max(width, value.shape[-1])
    block = 128 if widest > 64 and capability in MUCH_SHARED_MEMORY else 64
    columns = 128 if block == 128 and widest <= 128 else 64
    of_queries = _rounded(queries, block) * _rounded(width, columns)
    in_registers = widest <= block
    of_keys = 0 if in_registers else columns * (_rounded(width, block) + _rounded(value.shape[-1], block))
    return batch * heads * (of_queries + of_keys) * _FLOAT_BYTES


def _by_group(query: Tensor, key: Tensor, value: Tensor) -> list[int]:
    """Keys and values (or their gradients) once for every head of the queries, if they have fewer heads."""
    groups = query.shape[1] // key.shape[1]
    return [] if groups == 1 else [groups * _bytes(key), groups * _bytes(value)]


def _ctc_backward(args: tuple[Any, ...], _: tuple[int, int]) -> list[int]:
    """The sums of all paths to the end, as many as those from the start (LossCTC.cu)."""
    return [_bytes(args[6])]


def _copied(tensor: Tensor) -> int:
    """The copy of a BNLE tensor that a kernel makes if it is not contiguous as BLNE."""
    return 0 if tensor.transpose(1, 2).is_contiguous() else _bytes(tensor)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _rounded(value: int, step: int) -> int:
    return -(-value // step) * step


_RULES: dict[Any, Rule] = {
    **indexing.WORKSPACES,
    **losses.WORKSPACES,
    **nchw_kernels.WORKSPACES,
    _ATEN._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    _ATEN._scaled_dot_product_cudnn_attention_backward.default: _cudnn_backward,
    _ATEN._scaled_dot_product_efficient_attention.default: _efficient_forward,
    _ATEN._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    _ATEN._ctc_loss_backward.default: _ctc_backward,
    _ATEN._ctc_loss_backward.Tensor: _ctc_backward,
    _ATEN.convolution.default: memory_format.forward_workspace,
    _ATEN.convolution_backward.default: memory_format.backward_workspace,
    # host_softmax in SoftMax.cu, layer_norm_cuda in layer_norm_kernel.cu, group_norm_backward in derivatives.yaml
    _ATEN._softmax.default: made_contiguous(0),
    _ATEN._log_softmax.default: made_contiguous(0),
    _ATEN._softmax_backward_data.default: made_contiguous(0, 1),
    _ATEN._log_softmax_backward_data.default: made_contiguous(0, 1),
    _ATEN.native_layer_norm.default: made_contiguous(0),
    _ATEN.native_layer_norm_backward.default: made_contiguous(0, 1),
    _ATEN.native_group_norm_backward.default: made_contiguous(0),
    _ATEN.native_batch_norm_backward.default: batch_norm.backward_workspace,
    _ATEN._cudnn_rnn.default: recurrent.forward_workspace,
    _ATEN._cudnn_rnn_backward.default: recurrent.backward_workspace,
}

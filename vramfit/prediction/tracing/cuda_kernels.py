"""Operations that a card runs as one kernel and a CPU as another, or as several: what the card would run.

B batch, N heads, L queries, S keys, E width of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
# FlashAttention's widest head, and what every kernel pads a head's width to a multiple of.
_WIDEST_HEAD = 256
_ALIGNED = 8


def dropout(value: Tensor, probability: float, train: bool) -> Tensor:
    """A card drops out in one kernel that keeps a mask of bytes; a CPU keeps one of the value's own dtype."""
    if train and 0 < probability < 1:
        result: Tensor = _ATEN.native_dropout.default(value, probability, True)[0]
        return result
    return value * 0 if train and probability == 1 else value


def attention(  # noqa: PLR0917  # the signature of torch's own
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Scaled dot product attention of BNLE and BNSE: FlashAttention where it can run, else the memory-efficient kernel.

    FlashAttention takes half precision without a mask; what neither kernel takes is multiplied out.
    """
    if min(query.dim(), key.dim(), value.dim()) != 4 or enable_gqa or query.shape[-1] != value.shape[-1]:
        mask = attn_mask
        return _first(
            _ATEN._scaled_dot_product_attention_math.default(
                query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        )
    width = query.shape[-1]
    scale = width**-0.5 if scale is None else scale
    query, key, value = (_padded(part) for part in (query, key, value))
    if attn_mask is None and query.dtype in _HALF and width <= _WIDEST_HEAD:
        kernel = _ATEN._scaled_dot_product_flash_attention.default
        result = _first(kernel(query, key, value, dropout_p, is_causal, False, scale=scale))
    else:
        bias = _bias(attn_mask, query, key)
        keep = torch.is_grad_enabled()
        kernel = _ATEN._scaled_dot_product_efficient_attention.default
        result = _first(kernel(query, key, value, bias, keep, dropout_p, is_causal, scale=scale))
    return result if result.shape[-1] == width else result[..., :width]


def _first(results: Any) -> Tensor:
    first: Tensor = results[0]
    return first


def _padded(part: Tensor) -> Tensor:
    missing = -part.shape[-1] % _ALIGNED
    return torch.nn.functional.pad(part, (0, missing)) if missing else part


def _bias(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """The mask as the kernel wants it: added to the scores, its rows padded to whole memory transactions."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    length = mask.shape[-1]
    if missing := -length % _ALIGNED:
        mask = torch.nn.functional.pad(mask, (0, missing))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


CUDA_KERNELS: dict[str, Callable[..., Any]] = {"dropout": dropout, "scaled_dot_product_attention": attention}

"""Scaled dot product attention as CUDA runs it: which of torch's kernels takes a call, by the card and the arguments.

The rules are those of aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (torch 2.14, cuDNN 9.24): the first of cuDNN
(Hopper and Blackwell's data centre cards alone), FlashAttention, the memory-efficient kernel and plain products that
accepts the call and is not switched off (`torch.nn.attention.sdpa_kernel`). What a kernel returns and keeps for its
backward pass is what its meta kernel says.

B batch, N heads, L queries, S keys, E width of a head.

Known limitations: nested tensors are not dispatched; the priority order of `sdpa_kernel(..., set_priority=True)` is
taken to be torch's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_ATEN = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
# FlashAttention's widest head, and what it pads a head's width to a multiple of.
_FLASH_WIDEST = 256
_FLASH_ALIGNED = 8
# The memory-efficient kernel reads the rows of a mask in aligned pieces.
_MASK_ALIGNED = 8
_CUDNN_WIDEST = 128
_LAST_CUDNN_BEHIND_FLASH = 91500
_AMPERE = 8
# Major versions, Hopper and Blackwell of data centers, on which torch prefers cuDNN's attention.
CUDNN_ATTENTION = (9, 10)
# Their shared memory is too small for FlashAttention's backward pass of wide heads.
SMALL_SHARED_MEMORY = ((8, 6), (8, 7), (8, 9), (12, 0), (12, 1))
_FLASH_WIDEST_SMALL = 192


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments that decide which kernel runs."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    dropout: float
    causal: bool
    grouped: bool

    @property
    def needs_grad(self) -> bool:
        return torch.is_grad_enabled() and any(part.requires_grad for part in (self.query, self.key, self.value))

    @property
    def width(self) -> int:
        return self.query.shape[-1]

    def is_dense(self) -> bool:
        """Whether the fused kernels can read the three: one batch, matching heads, no empty sequence, whole rows."""
        parts = (self.query, self.key, self.value)
        if any(part.dim() != 4 for part in parts) or len({part.shape[0] for part in parts}) != 1:
            return False
        heads, kept = self.query.shape[1], self.key.shape[1]
        matching = kept == self.value.shape[1] and (heads % kept == 0 if self.grouped else heads == kept)
        filled = all(part.shape[2] > 0 for part in parts)
        return matching and filled and all(part.stride(-1) == 1 or part.shape[-1] == 1 for part in parts)


class Attention:
    """`scaled_dot_product_attention` of a card with the given compute capability."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self.capability = capability

    def __call__(  # noqa: PLR0917  # the signature of torch's own
        self,
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
        """Attention of BNLE queries over BNSE keys and values; BNLE."""
        call = _Call(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
        return self._kernel(call)(call, scale)

    def _kernel(self, call: _Call) -> Callable[[_Call, float | None], Tensor]:
        prefers_cudnn = self.capability[0] in CUDNN_ATTENTION and _cudnn_is_preferred()
        if prefers_cudnn and self._takes_cudnn(call):
            return _run_cudnn
        if self._takes_flash(call):
            return _run_flash
        return _run_efficient if self._takes_efficient(call) else _run_math

    def _takes_cudnn(self, call: _Call) -> bool:
        # cuDNN draws its dropout in steps of 1/16.
        widths = (call.width, call.value.shape[-1])
        return (
            torch.backends.cuda.cudnn_sdp_enabled()
            and call.is_dense()
            and _all_of(call, _HALF)
            and not (call.mask is not None and call.mask.requires_grad)
            and (call.dropout * 16).is_integer()
            and max(widths) <= _CUDNN_WIDEST
            and all(width % 8 == 0 for width in widths)
            and call.key.shape[2] != 1
            and not (call.dropout and call.query.shape[2] == 1)
        )

    def _takes_flash(self, call: _Call) -> bool:
        square = call.query.shape[-2] == call.key.shape[-2]
        return (
            torch.backends.cuda.flash_sdp_enabled()
            and self.capability[0] >= _AMPERE
            and call.is_dense()
            and _all_of(call, _HALF)
            and call.mask is None
            and call.width == call.key.shape[-1] == call.value.shape[-1] <= _FLASH_WIDEST
            and (square or not call.causal)
            and self._flash_trains(call)
        )

    def _flash_trains(self, call: _Call) -> bool:
        if not call.needs_grad or self.capability not in SMALL_SHARED_MEMORY:
            return True
        return call.width <= _FLASH_WIDEST_SMALL or (call.dropout == 0 and call.width > 224)

    def _takes_efficient(self, call: _Call) -> bool:
        aligned = self._alignment(call.query.dtype)
        dtypes = (torch.float16, torch.float32) + ((torch.bfloat16,) if self.capability[0] >= _AMPERE else ())
        starts = [part.storage_offset() % aligned for part in (call.query, call.key, call.value)]
        return (
            torch.backends.cuda.mem_efficient_sdp_enabled()
            and call.is_dense()
            and _all_of(call, dtypes)
            and call.width == call.key.shape[-1]
            and call.width % aligned == call.value.shape[-1] % aligned == 0
            and (self.capability[0] < _AMPERE or not any(starts))
            and (not call.grouped or _efficient_takes_groups())
        )

    def _alignment(self, dtype: torch.dtype) -> int:
        """Elements that the matrix products of the memory-efficient kernel read at once."""
        if self.capability[0] >= _AMPERE:
            return 8 if dtype in _HALF else 4
        return 8 if self.capability[0] >= 7 and dtype in _HALF else 1  # Volta is the first with tensor cores


def _cudnn_is_preferred() -> bool:
    """Whether torch puts cuDNN first: since 9.15.1; a build without it stands for the newest."""
    version = torch.backends.cudnn.version()
    return version is None or version > _LAST_CUDNN_BEHIND_FLASH


def _all_of(call: _Call, dtypes: tuple[torch.dtype, ...]) -> bool:
    return call.query.dtype == call.key.dtype == call.value.dtype and call.query.dtype in dtypes


@cache
def _efficient_takes_groups() -> bool:
    """Whether this torch's memory-efficient kernel has fewer heads of keys than of queries; older ones do not."""
    with _disable_current_modes():  # it is no operation of the step
        query, key = (torch.empty(1, heads, 8, 8, device="meta") for heads in (2, 1))
        seed = torch.empty((), dtype=torch.long, device="meta")
        stored = torch.empty(1, 2, 32, device="meta")
        backward = _ATEN._scaled_dot_product_efficient_attention_backward.default
        gradients = backward(query, query, key, key, None, query, stored, seed, seed, 0.0, [True, True, True, False])
    return bool(gradients[1].shape == key.shape)


def _run_flash(call: _Call, scale: float | None) -> Tensor:
    scale = call.width**-0.5 if scale is None else scale
    query, key, value = (_padded(part) for part in (call.query, call.key, call.value))
    kernel = _ATEN._scaled_dot_product_flash_attention.default
    result: Tensor = kernel(query, key, value, call.dropout, call.causal, False, scale=scale)[0]
    return result if result.shape[-1] == call.width else result[..., : call.width]


def _run_cudnn(call: _Call, scale: float | None) -> Tensor:
    mask = _additive(call.mask, call.query.dtype)
    kernel = _ATEN._scaled_dot_product_cudnn_attention.default
    arguments = (call.query, call.key, call.value, mask, call.needs_grad, call.dropout, call.causal, False)
    result: Tensor = kernel(*arguments, scale=scale)[0]
    return result


def _run_efficient(call: _Call, scale: float | None) -> Tensor:
    bias = _bias(_additive(call.mask, call.query.dtype), call)
    kernel = _ATEN._scaled_dot_product_efficient_attention.default
    arguments = (call.query, call.key, call.value, bias, call.needs_grad, call.dropout, call.causal)
    result: Tensor = kernel(*arguments, scale=scale)[0]
    return result


def _run_math(call: _Call, scale: float | None) -> Tensor:
    mask = _additive(call.mask, call.query.dtype)
    kernel = _ATEN._scaled_dot_product_attention_math.default
    arguments = (call.query, call.key, call.value, mask, call.dropout, call.causal)
    result: Tensor = kernel(*arguments, scale=scale, enable_gqa=call.grouped)[0]
    return result


def _padded(part: Tensor) -> Tensor:
    missing = -part.shape[-1] % _FLASH_ALIGNED
    return torch.nn.functional.pad(part, (0, missing)) if missing else part


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The mask as it is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))


def _bias(mask: Tensor | None, call: _Call) -> Tensor | None:
    """The mask in BNLS, its rows padded to whole memory transactions."""
    if mask is None:
        return None
    length = mask.shape[-1]
    if missing := -length % _MASK_ALIGNED:
        mask = torch.nn.functional.pad(mask, (0, missing))[..., :length]
    return mask.expand(call.query.shape[0], call.query.shape[1], call.query.shape[2], call.key.shape[2])

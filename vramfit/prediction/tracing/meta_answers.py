"""What an operation returns, by the shapes it is given: asked of torch's `meta` kernels, told as records of tensors."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vramfit.prediction.tracing.memory_format import convolution_format
from vramfit.prediction.tracing.meta_kernels import META_KERNELS
from vramfit.prediction.tracing.tensor_trees import tensors_given

_ATEN = torch.ops.aten
# Where a convolution is given its image and its weight.
_CONVOLUTIONS = {_ATEN.convolution.default: slice(0, 2), _ATEN.convolution_backward.default: slice(1, 3)}
_NUMBERS = (bool, int, float, complex)
# Arguments that say where a new tensor goes; a meta kernel makes meta tensors.
_PLACES = {"device", "pin_memory"}
# Meta kernels of such operations fail in words of their own, or are not there: it depends on what was imported.
_NEED_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@dataclass(frozen=True, slots=True)
class New:
    """A tensor that an operation makes."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Same:
    """A result that is the operation's n-th tensor argument, seen differently or not."""

    number: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse tensor of indices and values that an operation makes, or was given."""

    indices: New | Same
    values: New | Same
    size: tuple[int, ...]
    coalesced: bool


def description_of(value: Any) -> Any:
    """What an argument is to a meta kernel, as a key: of tensors the dtype, the shape and the stride."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.stride(), value.dim() == 0 and value.storage_offset()
    if isinstance(value, (list, tuple)):
        return tuple(map(description_of, value))
    if isinstance(value, _NUMBERS):
        return type(value), value
    return value


def answer_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the operation's meta kernel returns, as `New` and `Same`."""
    try:
        if not needs_values(func, kwargs):
            answer = _ask_meta(func, args, kwargs, _meta)
            return _in_order_of_cudnn(func, answer, args) if func in _CONVOLUTIONS else answer
    except NotImplementedError:
        pass
    return _ask_fake(func, args, kwargs)


def _in_order_of_cudnn(func: Any, answer: Any, args: tuple[Any, ...]) -> Any:
    """What a convolution returns, NHWC where its input or weight is, as `cudnn_conv_suggest_memory_format` says.

    Torch's own meta kernel has no device to go by, and says NCHW.
    """
    order = convolution_format(*args[_CONVOLUTIONS[func]])
    if order is torch.contiguous_format:
        return answer
    parts = (answer,) if isinstance(answer, New) else answer
    ordered = tuple(
        replace(part, stride=torch.empty(part.size, device="meta", memory_format=order).stride())
        if isinstance(part, New) and len(part.size) == args[1].dim()
        else part
        for part in parts
    )
    return ordered[0] if isinstance(answer, New) else ordered


def _ask_fake(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # Knows more operations than the meta kernels, and says which need values; slow to import, so only when needed.
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        return _ask_meta(func, args, kwargs, lambda tensor: mode.from_tensor(_meta(tensor)))


def _ask_meta(func: Any, args: Any, kwargs: Any, convert: Callable[[Tensor], Tensor]) -> Any:
    asked_args, asked_kwargs = tree_map(
        lambda value: convert(value) if isinstance(value, Tensor) else value, (args, kwargs)
    )
    for name in _PLACES & set(asked_kwargs):
        asked_kwargs[name] = "meta" if name == "device" else None
    if any(argument.name == "device" for argument in func._schema.arguments):
        asked_kwargs["device"] = "meta"
    sources = [tensor.untyped_storage()._cdata for tensor in tensors_given(asked_args, asked_kwargs)]
    meta = META_KERNELS.get(func, func)
    return _answer(meta(*asked_args, **asked_kwargs), sources)


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def needs_values(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a result's shape is in the values; indexing is asked without masks, and a size may be given."""
    by_values = not _NEED_VALUES.isdisjoint(func.tags) and func is not _ATEN.index.Tensor
    return (by_values and kwargs.get("output_size") is None) or func.name() == "torchvision::nms"


def answer_of_values(result: Any) -> Any:
    """The same of a result that was computed from values; positions lie by dimension, as a card lays them."""
    if isinstance(result, Tensor):
        return New(tuple(result.shape), torch.empty_like(result, device="meta").stride(), result.dtype)
    if isinstance(result, (list, tuple)):
        return type(result)(map(answer_of_values, result))
    return result


def _answer(result: Any, sources: list[int]) -> Any:
    if isinstance(result, Tensor) and result.layout is torch.sparse_coo:
        parts = _answer(result._indices(), sources), _answer(result._values(), sources)
        return Sparse(*parts, tuple(result.shape), result.is_coalesced())
    if isinstance(result, Tensor):
        size, stride = tuple(result.shape), result.stride()
        address = result.untyped_storage()._cdata
        if address in sources:
            return Same(sources.index(address), size, stride, int(result.storage_offset()))
        return New(size, stride, result.dtype)
    if isinstance(result, (list, tuple)):
        return type(result)(_answer(part, sources) for part in result)
    return result

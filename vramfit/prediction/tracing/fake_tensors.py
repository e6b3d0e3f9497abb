"""Tensors that say they are on a CPU and have no memory behind them, and operations on them.

A storage-less tensor is a plain `torch.Tensor` whose storage has a size and no bytes, so autograd, autocast, optimizers
and views treat it as any other; only a kernel would crash on it. `Operations.run` stands in for the kernels: it asks
torch's `meta` kernels what an operation returns, once for each combination of shapes, and makes that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vramfit.prediction.tracing.address_space import reserve
from vramfit.prediction.tracing.assumptions import Assumptions, NeedsValues
from vramfit.prediction.tracing.memory_format import convolution_format
from vramfit.prediction.tracing.meta_kernels import META_KERNELS
from vramfit.prediction.tracing.op_schema import Nature, nature_of, written_argument, written_tensors
from vramfit.prediction.tracing.sparse_tensors import dense_parts, sparse_of
from vramfit.prediction.tracing.tensor_trees import tensors_given, tensors_in
from vramfit.prediction.tracing.values import Values

_ATEN = torch.ops.aten
# The host's memory, in the way that no tensor says it: what is asked for on a traced tensor's device is on the card.
HOST = torch.device("cpu", 0)
_COMPARING = {_ATEN.equal, _ATEN.allclose}
# Where a convolution is given its image and its weight.
_CONVOLUTIONS = {_ATEN.convolution.default: slice(0, 2), _ATEN.convolution_backward.default: slice(1, 3)}
_NUMBERS = (bool, int, float, complex)
# Arguments that say where a new tensor goes; a meta kernel makes meta tensors.
_PLACES = {"device", "pin_memory"}
# Meta kernels of such operations fail in words of their own, or are not there: it depends on what was imported.
_NEED_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def storageless(size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of the given size and stride without memory; to be used under a `Recorder` alone."""
    numel = 0 if 0 in size else 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    return torch.empty(0, dtype=dtype).set_(reserve(numel * dtype.itemsize), 0, size, stride)


@dataclass(frozen=True, slots=True)
class _New:
    """A tensor that an operation makes."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Same:
    """A result that is the operation's n-th tensor argument, seen differently or not."""

    number: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class _Sparse:
    """A sparse tensor of indices and values that an operation makes, or was given."""

    indices: _New | _Same
    values: _New | _Same
    size: tuple[int, ...]
    coalesced: bool


class Operations:
    """Runs operations on storage-less tensors, remembering what each returns.

    A tensor is made on the card where a device is named, or where what it is made of is there; else on the host.
    """

    def __init__(
        self,
        on_card: Callable[[Tensor], bool],
        made: Callable[[Tensor], None],
        values: Values,
        assumptions: Assumptions,
    ) -> None:
        self._on_card = on_card
        self._made = made
        self._values = values
        self._assumptions = assumptions
        self._known: dict[Any, Any] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        """What an operation returns of `given` tensors; new ones have no storage, and `made` is told of each."""
        nature = nature_of(func)
        if not given and (kwargs.get("device") or "card") == HOST:
            return func(*args, **{**kwargs, "device": torch.device("cpu")})
        if nature is Nature.VIEW or (given and not any(map(self._on_card, given))):
            return func(*args, **kwargs)
        if nature is Nature.WRITE:
            return self._write(func, args, kwargs, given)
        if func is _ATEN._local_scalar_dense.default:
            return self._assumptions.number(args[0], str(func))
        if func.overloadpacket in _COMPARING:
            return self._assumptions.agree(func, args, kwargs, given)
        return self._compute(func, args, kwargs, given)

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        written = written_tensors(func, args, kwargs)
        if written and not any(map(self._on_card, written)):  # the host's copy of what is on the card
            known = [self._assumptions.read(one, str(func)) if self._on_card(one) else one for one in given]
            self._values.computed_from(func, args, known, kwargs)
        else:
            self._values.write(func, args, kwargs, given)
        return written_argument(func, args, kwargs)

    def _compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        positions: list[Tensor] = []
        if func is _ATEN.index.Tensor and any(map(_is_mask, args[1])):
            args, positions = self._without_masks(args)
            given = tensors_given(args, kwargs)
        answer, reals, why = self._answer(func, args, kwargs, given)
        out = self._make(answer, given)
        del positions
        before = {tensor.untyped_storage()._cdata for tensor in given}
        parts = [part for tensor in tensors_in(out) for part in dense_parts(tensor)]
        new = [part for part in parts if self._on_card(part) and part.untyped_storage()._cdata not in before]
        if reals is None:
            self._values.follow(func, args, kwargs, given, new)
        else:
            self._values.take(new, reals, why)
        unknown = [tensor for tensor in new if self._values.of(tensor) is None]
        if unknown:
            self._assumptions.infer(func, args, parts)
        self._values.counts.follow(func, args, given, new)
        if why:
            self._values.counts.assume_lengths(new)
        return out

    def _answer(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]
    ) -> tuple[Any, list[Tensor] | None, str]:
        """What an operation returns, its values where they were needed for its shape, and what was assumed."""
        if func is _ATEN._pack_padded_sequence.default:
            return self._packed(*args), None, ""
        if not _needs_values(func):
            key = (func, _describe(args), _describe(tuple(kwargs.items())))
            try:
                if key not in self._known:
                    self._known[key] = _ask(func, args, kwargs)
            except (NotImplementedError, RuntimeError, ValueError, TypeError) as error:
                return self._shaped(func, args, kwargs, given, error)
            return self._known[key], None, ""
        return self._shaped(func, args, kwargs, given)

    def _shaped(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[Tensor],
        cause: Exception | None = None,
    ) -> tuple[Any, list[Tensor], str]:
        try:
            result, why = self._assumptions.shaped(func, args, kwargs, given)
        except NeedsValues as error:
            raise cause or error from None
        return _answer_of_values(result), tensors_in(result), why

    def _packed(self, value: Tensor, lengths: Tensor, batch_first: bool) -> tuple[_New, Tensor]:
        """The steps of sequences that are not padding, and on the host how many sequences each step has."""
        if self._on_card(lengths):
            lengths = self._assumptions.read(lengths, "pack_padded_sequence")
        thin = torch.zeros(*value.shape[:2], 1)
        steps, sequences = _ATEN._pack_padded_sequence.default(thin, lengths, batch_first)
        size = (steps.shape[0], *value.shape[2:])
        return _New(size, torch.empty(size, device="meta").stride(), value.dtype), sequences

    def _without_masks(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Tensor]]:
        """Indexing by masks as a card does it: by the positions of what they keep, which are found first."""
        indices: list[Tensor | None] = []
        positions: list[Tensor] = []
        for index in args[1]:
            if _is_mask(index):
                positions.append(self.run(_ATEN.nonzero.default, (index,), {}, [index]))
                indices += positions[-1].unbind(1)
            else:
                indices.append(index)
        return (args[0], indices, *args[2:]), positions

    def _make(self, answer: Any, given: list[Tensor]) -> Any:
        if isinstance(answer, _New):
            tensor = storageless(answer.size, answer.stride, answer.dtype)
            self._made(tensor)
            return tensor
        if isinstance(answer, _Same):
            return _ATEN.as_strided.default(given[answer.number], answer.size, answer.stride, answer.offset)
        if isinstance(answer, _Sparse):
            parts = self._make(answer.indices, given), self._make(answer.values, given)
            return sparse_of(*parts, answer.size, coalesced=answer.coalesced)
        if isinstance(answer, (list, tuple)):
            return type(answer)(self._make(part, given) for part in answer)
        return answer


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.stride(), value.dim() == 0 and value.storage_offset()
    if isinstance(value, (list, tuple)):
        return tuple(map(_describe, value))
    if isinstance(value, _NUMBERS):
        return type(value), value
    return value


def _ask(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the operation's meta kernel returns, as `_New` and `_Same`."""
    try:
        if not _needs_values(func):
            answer = _ask_meta(func, args, kwargs, _meta, "meta")
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
    parts = (answer,) if isinstance(answer, _New) else answer
    ordered = tuple(
        replace(part, stride=torch.empty(part.size, device="meta", memory_format=order).stride())
        if isinstance(part, _New) and len(part.size) == args[1].dim()
        else part
        for part in parts
    )
    return ordered[0] if isinstance(answer, _New) else ordered


def _ask_fake(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # Knows more operations than the meta kernels, and says which need values; slow to import, so only when needed.
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        return _ask_meta(func, args, kwargs, lambda tensor: mode.from_tensor(_meta(tensor)), "meta")


def _ask_meta(func: Any, args: Any, kwargs: Any, convert: Callable[[Tensor], Tensor], place: str) -> Any:
    asked_args, asked_kwargs = tree_map(
        lambda value: convert(value) if isinstance(value, Tensor) else value, (args, kwargs)
    )
    for name in _PLACES & set(asked_kwargs):
        asked_kwargs[name] = place if name == "device" else None
    if _makes_from_nothing(func):
        asked_kwargs["device"] = place
    sources = [tensor.untyped_storage()._cdata for tensor in tensors_given(asked_args, asked_kwargs)]
    meta = META_KERNELS.get(func, func)
    return _answer(meta(*asked_args, **asked_kwargs), sources)


def _makes_from_nothing(func: Any) -> bool:
    return any(argument.name == "device" for argument in func._schema.arguments)


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _needs_values(func: Any) -> bool:
    """Whether a result's shape is in the values; indexing is asked without masks."""
    by_values = not _NEED_VALUES.isdisjoint(func.tags) and func is not _ATEN.index.Tensor
    return by_values or func.name() == "torchvision::nms"


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)


def _answer_of_values(result: Any) -> Any:
    if isinstance(result, Tensor):
        return _New(tuple(result.shape), torch.empty(result.shape, device="meta").stride(), result.dtype)
    if isinstance(result, (list, tuple)):
        return type(result)(map(_answer_of_values, result))
    return result


def _answer(result: Any, sources: list[int]) -> Any:
    if isinstance(result, Tensor) and result.layout is torch.sparse_coo:
        parts = _answer(result._indices(), sources), _answer(result._values(), sources)
        return _Sparse(*parts, tuple(result.shape), result.is_coalesced())
    if isinstance(result, Tensor):
        size, stride = tuple(result.shape), result.stride()
        address = result.untyped_storage()._cdata
        if address in sources:
            return _Same(sources.index(address), size, stride, int(result.storage_offset()))
        return _New(size, stride, result.dtype)
    if isinstance(result, (list, tuple)):
        return type(result)(_answer(part, sources) for part in result)
    return result

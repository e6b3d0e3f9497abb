"""Tensors that say they are on a CPU and have no memory behind them, and operations on them.

A storage-less tensor is a plain `torch.Tensor` whose storage has a size and no bytes, so autograd, autocast, optimizers
and views treat it as any other; only a kernel would crash on it. `Operations.run` stands in for the kernels: it asks
torch's `meta` kernels what an operation returns, once for each combination of shapes, and makes that.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.address_space import reserve
from vramfit.prediction.tracing.assumptions import Assumptions, NeedsValues
from vramfit.prediction.tracing.meta_answers import (
    New,
    Same,
    Sparse,
    answer_of,
    answer_of_values,
    description_of,
    needs_values,
)
from vramfit.prediction.tracing.op_schema import Nature, nature_of, written_argument, written_tensors
from vramfit.prediction.tracing.sparse_tensors import dense_parts, sparse_of
from vramfit.prediction.tracing.tensor_trees import tensors_given, tensors_in
from vramfit.prediction.tracing.values import Values

_ATEN = torch.ops.aten
# The host's memory, in the way that no tensor says it: what is asked for on a traced tensor's device is on the card.
HOST = torch.device("cpu", 0)
_COMPARING = {_ATEN.equal, _ATEN.allclose}


def storageless(size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of the given size and stride without memory; to be used under a `Recorder` alone."""
    numel = 0 if 0 in size else 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    return torch.empty(0, dtype=dtype).set_(reserve(numel * dtype.itemsize), 0, size, stride)


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
        if not needs_values(func, kwargs):
            key = (func, description_of(args), description_of(tuple(kwargs.items())))
            try:
                if key not in self._known:
                    self._known[key] = answer_of(func, args, kwargs)
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
        return answer_of_values(result), tensors_in(result), why

    def _packed(self, value: Tensor, lengths: Tensor, batch_first: bool) -> tuple[New, Tensor]:
        """The steps of sequences that are not padding, and on the host how many sequences each step has."""
        if self._on_card(lengths):
            lengths = self._assumptions.read(lengths, "pack_padded_sequence")
        thin = torch.zeros(*value.shape[:2], 1)
        steps, sequences = _ATEN._pack_padded_sequence.default(thin, lengths, batch_first)
        size = (steps.shape[0], *value.shape[2:])
        return New(size, torch.empty(size, device="meta").stride(), value.dtype), sequences

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
        if isinstance(answer, New):
            tensor = storageless(answer.size, answer.stride, answer.dtype)
            self._made(tensor)
            return tensor
        if isinstance(answer, Same):
            return _ATEN.as_strided.default(given[answer.number], answer.size, answer.stride, answer.offset)
        if isinstance(answer, Sparse):
            parts = self._make(answer.indices, given), self._make(answer.values, given)
            return sparse_of(*parts, answer.size, coalesced=answer.coalesced)
        if isinstance(answer, (list, tuple)):
            return type(answer)(self._make(part, given) for part in answer)
        return answer


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)

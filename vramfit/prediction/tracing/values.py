"""What is known of the values of traced tensors: real ones where they are cheap, and what is assumed of the rest.

A traced tensor has no memory, but the sample batch, buffers and index tensors came from real ones. `Values` keeps
real twins of those storages and repeats on them what the step does, so that a count or a flag that rests on the
sample's own targets is the sample's. A twin may also be one number everywhere (`fill`), which takes no memory.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vramfit.choices import ValuePolicy
from vramfit.prediction.tracing.address_space import is_reserved
from vramfit.prediction.tracing.op_schema import written_tensors
from vramfit.prediction.tracing.tensor_trees import tensors_in
from vramfit.prediction.tracing.value_counts import ValueCounts

_ATEN = torch.ops.aten
# The most that one tensor may hold to have a twin: enough for targets and index maps, too little for activations.
_FLOAT_LIMIT_BYTES = 4 << 20
_WHOLE_LIMIT_BYTES = 16 << 20
# Their results are whatever memory held, so nothing is known.
_UNFILLED = {_ATEN.empty, _ATEN.empty_like, _ATEN.new_empty, _ATEN.empty_strided, _ATEN.new_empty_strided}
# Their results depend on the shape of their first argument and not on its values.
_LIKE = {
    *(_ATEN.zeros_like, _ATEN.ones_like, _ATEN.full_like, _ATEN.rand_like, _ATEN.randn_like, _ATEN.randint_like),
    *(_ATEN.new_zeros, _ATEN.new_ones, _ATEN.new_full),
}
# Write the whole of their first argument.
_OVERWRITING = {
    *(_ATEN.fill_, _ATEN.zero_, _ATEN.copy_, _ATEN.uniform_, _ATEN.normal_, _ATEN.random_, _ATEN.bernoulli_),
}

Number = bool | int | float | complex
Limit = Literal["small", "everything", "nothing"]


def limit_of(policy: ValuePolicy) -> Limit:
    """What has a twin where values are computed, refused, or assumed."""
    return "everything" if policy.real else "nothing" if policy.strict else "small"


@dataclass(frozen=True, slots=True)
class Twin:
    """Values of a storage: real bytes, or one number everywhere; `why` says what was assumed, "" if nothing was."""

    storage: torch.UntypedStorage | None = None
    fill: Number = 0
    why: str = ""


class Values:
    """Twins of the card's storages, by the storages' addresses.

    `limit` says what has a twin: what is small; everything, which runs every kernel for real and suits small models
    alone; or nothing.
    """

    def __init__(self, on_card: Callable[[Tensor], bool], limit: Limit) -> None:
        self._on_card = on_card
        self._twins: dict[int, Twin] = {}
        self._limit = limit
        self.counts = ValueCounts(self.of, self.why)

    def drop(self, address: int) -> None:
        """Forget a storage that is gone."""
        self._twins.pop(address, None)
        self.counts.drop(address)

    def forget(self, tensors: Iterable[Tensor]) -> None:
        """Know nothing more of what these tensors hold."""
        for tensor in tensors:
            self._twins.pop(_address(tensor), None)

    def adopt(self, tensor: Tensor, real: Tensor) -> None:
        """Let a new traced tensor have the values of a host tensor, if it is small enough."""
        held = real.layout is torch.strided and real.device.type == "cpu" and not is_reserved(real.untyped_storage())
        if held and self.small(real):
            self.set(tensor, real.detach())

    def set(self, tensor: Tensor, real: Tensor, why: str = "") -> None:
        """Say what a traced tensor holds, which must begin at the start of its storage."""
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(real)
        self._twins[_address(tensor)] = Twin(twin.untyped_storage(), why=why)

    def fill(self, tensor: Tensor, number: Number, why: str) -> None:
        """Say that a traced tensor's storage holds one number everywhere."""
        self._twins[_address(tensor)] = Twin(fill=number, why=why)

    def of(self, tensor: Tensor) -> Tensor | None:
        """The values of a tensor, as a host tensor that must not be written into; None if they are not known."""
        if not self._on_card(tensor):
            return tensor
        twin = self._twins.get(_address(tensor))
        if twin is None:
            return None
        if twin.storage is None:
            return torch.tensor(twin.fill, dtype=tensor.dtype).expand(tensor.shape)
        return _seen_like(twin.storage, tensor)

    def why(self, tensors: Iterable[Tensor]) -> str:
        """What the first assumed one among the tensors rests on; "" if none is assumed."""
        found = (self._twins.get(_address(tensor)) for tensor in tensors)
        return next((twin.why for twin in found if twin is not None and twin.why), "")

    def small(self, tensor: Tensor) -> bool:
        """Whether a tensor may have a twin."""
        if self._limit != "small":
            return self._limit == "everything"
        limit = _FLOAT_LIMIT_BYTES if tensor.is_floating_point() or tensor.is_complex() else _WHOLE_LIMIT_BYTES
        return tensor.numel() * tensor.element_size() <= limit

    def computed(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> Any:
        """What an operation returns of known values, as host tensors; None if one is not known, or it will not run."""
        known = []
        for tensor in given:
            value = self.of(tensor)
            if value is None:
                return None
            known.append(value)
        return self.computed_from(func, args, known, kwargs)

    def computed_from(self, func: Any, args: Any, known: list[Tensor], kwargs: Any = None) -> Any:
        """What an operation returns of these values of its tensors, as host tensors; None if it will not run."""
        return _run(func, args, kwargs or {}, known)

    def follow(self, func: Any, args: Any, kwargs: Any, given: list[Tensor], out: list[Tensor]) -> None:
        """Give the new results of an operation their values, if all that it was given is known."""
        packet = func.overloadpacket
        if packet in _UNFILLED or not all(map(self.small, out)):
            return self._follow_fill(func, args, kwargs, given, out)
        if packet in _LIKE:
            shadow = torch.zeros((), dtype=args[0].dtype).expand(args[0].shape)
            results = _run(func, (shadow, *args[1:]), kwargs, [])
        else:
            results = self.computed(func, args, kwargs, given)
        why = self.why(given)
        for tensor, real in zip(out, tensors_in(results), strict=False):
            if real.shape == tensor.shape:
                self.set(tensor, real, why)
        return None

    def take(self, tensors: list[Tensor], reals: list[Tensor], why: str) -> None:
        """Give new tensors the values that their shapes were found with, where those are values and not a shape."""
        for tensor, real in zip(tensors, reals, strict=True):
            if self.small(tensor) and 0 not in real.stride():
                self.set(tensor, real, why)

    def _follow_fill(self, func: Any, args: Any, kwargs: Any, given: list[Tensor], out: list[Tensor]) -> None:
        """One number everywhere stays one number under elementwise operations, however large the tensor."""
        if torch.Tag.pointwise not in func.tags or len(out) != 1 or not given:
            return
        numbers = [self._number(tensor) for tensor in given]
        if any(number is None for number in numbers):
            return
        result = _run(func, args, kwargs, numbers)
        if isinstance(result, Tensor) and result.numel() == 1:
            self.fill(out[0], result.item(), self.why(given))

    def _number(self, tensor: Tensor) -> Tensor | None:
        twin = self._twins.get(_address(tensor)) if self._on_card(tensor) else None
        if twin is not None and twin.storage is None:
            return torch.tensor(twin.fill, dtype=tensor.dtype)
        return self.of(tensor) if tensor.dim() == 0 else None

    def write(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> None:
        """Follow an operation that writes: on the twins where all is known, else what it wrote is known no more."""
        written = [tensor for tensor in written_tensors(func, args, kwargs) if self._on_card(tensor)]
        for tensor in written:
            self.counts.drop(_address(tensor))
        if all(self._ready(func, tensor, written) for tensor in given):
            with suppress(Exception):
                known = [self._writable(tensor) if _is_in(tensor, written) else self.of(tensor) for tensor in given]
                _substituted(func, args, kwargs, known)
                self._assume(written, self.why(given))
                return
        self.forget(written)

    def _ready(self, func: Any, tensor: Tensor, written: list[Tensor]) -> bool:
        if not self._on_card(tensor) or _address(tensor) in self._twins:
            return not _is_in(tensor, written) or self.small(tensor)
        whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        return func.overloadpacket in _OVERWRITING and _is_in(tensor, written) and whole and self.small(tensor)

    def _writable(self, tensor: Tensor) -> Tensor:
        """The twin itself, made where there is none or only a number."""
        address = _address(tensor)
        twin = self._twins.get(address)
        if twin is None or twin.storage is None:
            count = tensor.untyped_storage().nbytes() // tensor.element_size()
            made = torch.full((count,), twin.fill if twin else 0, dtype=tensor.dtype)
            twin = self._twins[address] = Twin(made.untyped_storage(), why=twin.why if twin else "")
        return _seen_like(twin.storage, tensor)

    def _assume(self, written: list[Tensor], why: str) -> None:
        for tensor in written:
            twin = self._twins[_address(tensor)]
            if why and not twin.why:
                self._twins[_address(tensor)] = Twin(twin.storage, twin.fill, why)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _is_in(tensor: Tensor, tensors: list[Tensor]) -> bool:
    return any(tensor is other for other in tensors)


def _seen_like(storage: Any, tensor: Tensor) -> Tensor:
    seen = torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    if tensor.is_conj():
        seen = seen.conj()
    return torch._neg_view(seen) if tensor.is_neg() else seen


def _run(func: Any, args: Any, kwargs: Any, known: list[Any]) -> Any:
    """An operation run for real; None where the CPU has no kernel for it, or the values do not suit it."""
    with suppress(Exception):
        return _substituted(func, args, kwargs, known)
    return None


def _substituted(func: Any, args: Any, kwargs: Any, known: list[Any]) -> Any:
    """An operation with its tensors, in order, replaced; the given ones where `known` is empty."""
    if known:
        rest = iter(known)
        args, kwargs = tree_map(lambda value: next(rest) if isinstance(value, Tensor) else value, (args, kwargs))
    with torch.no_grad():
        return func(*args, **kwargs)

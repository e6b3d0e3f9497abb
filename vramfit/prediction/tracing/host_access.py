"""How a step's Python code sees the two memories: what moves between them, and what reads the card's.

To torch a traced tensor is one of a CPU, so `.to(device)`, `.cpu()` and `.numpy()` would do nothing, or read memory
that is not there. Within `two_memories` they do what they do on a card: `cuda` means the card and `cpu` the host.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_map

from vramfit.jobs import offload
from vramfit.prediction.tracing.address_space import is_reserved
from vramfit.prediction.tracing.card_places import CARD, card_places, is_card, is_memory
from vramfit.prediction.tracing.fake_tensors import HOST
from vramfit.prediction.tracing.swapping import swap
from vramfit.prediction.tracing.tensor_trees import tensors_given

_MOVING = ("to", "cpu", "cuda", "type_as", "pin_memory", "share_memory_", "__repr__", "__deepcopy__", "__iter__")
_LOOP_LIMIT = 256  # rounds of a loop over as many elements as are assumed; each runs the same operations
_HOST_LIMIT_BYTES = 64 << 20  # a larger copy on the host reads as zeros and holds no memory


class Memories(Protocol):
    """Who knows which tensors are on the card."""

    def on_card(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the card."""
        ...

    def holds(self, storage: torch.UntypedStorage) -> bool:
        """Whether a storage is on the card."""
        ...

    def bring(self, tensor: Tensor) -> Tensor:
        """The card's copy of a host tensor."""
        ...

    def read(self, tensor: Tensor, what: str) -> Tensor:
        """The values of a tensor on the card; `what` is the operation that wants them."""
        ...

    def park(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor that waits on the host without being read."""
        ...

    def has_assumed_length(self, tensor: Tensor) -> bool:
        """Whether it is assumed how many elements a tensor on the card has."""
        ...

    def draw(self, tensor: Tensor, low: float, high: float) -> None:
        """Let a tensor of one number drawn at random hold an end of its range."""
        ...

    def note(self, assumed: str) -> None:
        """Remember that the caller's line relies on an assumption."""
        ...

    @property
    def in_step(self) -> bool:
        """Whether what runs is the step that is traced, and not, as in a script, what prepares data for it."""
        ...


@contextmanager
def two_memories(memories: Memories) -> Iterator[None]:
    """Within it, tensors move between host and card, and are read, as on a machine with a card."""
    access = _Access(memories)
    with ExitStack() as stack:
        for name in (
            "to",
            "cpu",
            "cuda",
            "type_as",
            "pin_memory",
            "share_memory_",
            "__repr__",
            "__deepcopy__",
            "__iter__",
        ):
            swap(stack, Tensor, name, _method(getattr(access, name.strip("_")), getattr(Tensor, name)))
        for name in ("numpy", "__array__", "tolist", "__dlpack__", "__reduce_ex__"):
            swap(stack, Tensor, name, _method(access.reader(name), getattr(Tensor, name)))
        swap(stack, Tensor, "new_tensor", _new_tensor)
        for name in ("tensor", "as_tensor", "asarray"):
            swap(stack, torch, name, _method(access.tensor_of, getattr(torch, name)))
        swap(stack, offload, "to_host", memories.park)
        swap(stack, offload, "to_card", lambda parked, _device: memories.bring(parked))
        stack.enter_context(card_places(memories.on_card, memories.holds))
        stack.enter_context(_Devices(memories))
        yield


class _Devices(TorchFunctionMode):
    """Says of new tensors which memory they go to: torch itself fills in the device where a call names none.

    A single number that a step draws at random may decide whether a layer is dropped, as transformers draws it, or how
    large an image is: it is an end of its range.
    """

    def __init__(self, memories: Memories) -> None:
        super().__init__()
        self._memories = memories

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            place = kwargs.get("device")
            kwargs = {**kwargs, "device": HOST if place is None else _dispatched(place, _CARD_TO_TORCH)}
            kwargs.pop("pin_memory", None)  # as `Tensor.pin_memory` has it
        elif kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _dispatched(kwargs["device"], CARD)}
        if func in _OF_VALUES and kwargs.get("device") == CARD:  # a default of torch: no call names one, see below
            return self._memories.bring(func(*args, **{**kwargs, "device": HOST}))
        made = func(*args, **kwargs)
        if func in _DRAWING and _is_single(made) and self._memories.in_step:
            self._memories.draw(made, *_range_of(func, made, args, kwargs))
        elif func is torch._C._nn._parse_to and any(map(self._memories.on_card, tensors_given(args, kwargs))):
            return (CARD, *made[1:])
        return made


def _is_single(tensor: Tensor) -> bool:
    return tensor.numel() == 1 and tensor.untyped_storage().nbytes() == tensor.element_size()


def _range_of(func: Any, made: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float]:
    """The lowest and highest number that a function may have drawn."""
    if func in _FLIPPING:
        return 0, 1
    if made.is_floating_point():
        named = {"from": 0.0, "to": 1.0, **kwargs}
        if func is Tensor.uniform_:
            named |= dict(zip(("from", "to"), args[1:], strict=False))
        return named["from"], named["from"] + (named["to"] - named["from"]) * (1 - torch.finfo(made.dtype).eps)
    bounds = [value for value in (*args, kwargs.get("low"), kwargs.get("high")) if isinstance(value, int)]
    return (min(bounds) if len(bounds) > 1 else 0), max(bounds) - 1


_FLIPPING = {torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_}
_DRAWING = {torch.rand, torch.rand_like, torch.randint, Tensor.uniform_, *_FLIPPING}
_OF_VALUES = {torch.tensor, torch.as_tensor, torch.asarray}
_FACTORIES = _device_constructors() - _OF_VALUES
_CARD_TO_TORCH = torch.device("cpu")


def _dispatched(place: Any, card: torch.device) -> torch.device:
    """The device that a dispatch mode is to see: `card` for the card, `HOST` for the host."""
    if is_card(place):
        return card
    device = torch.device(place)
    return HOST if device.type == "cpu" else device


def _new_tensor(tensor: Tensor, data: Any, *, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
    """A tensor of other values, of a tensor's dtype and where it is, unless a call says otherwise."""
    place = tensor.device if device is None else device
    made: Tensor = torch.tensor(data, dtype=dtype or tensor.dtype, device=place, **kwargs)
    return made


def _method(replacement: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    return method


class _Access:
    """Replacements; each is given the original first."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories

    def to(self, original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A copy where the arguments say, if they name a device."""
        place, args, kwargs = _split_place(args, kwargs)
        if isinstance(place, Tensor):
            kwargs["dtype"] = place.dtype
            tensor = self._placed(tensor, on_card=self._memories.on_card(place))
        elif place is not None and not is_memory(place):
            kwargs["device"] = place
        elif place is not None:
            tensor = self._placed(tensor, on_card=is_card(place))
        return original(tensor, *args, **kwargs) if args or kwargs else tensor

    def cpu(self, original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        """The host's copy."""
        return self._placed(tensor, on_card=False)

    def cuda(self, original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        """The card's copy."""
        return self._placed(tensor, on_card=True)

    def type_as(self, original: Any, tensor: Tensor, other: Tensor) -> Any:
        """A copy where another tensor is, of its dtype."""
        return original(self._placed(tensor, on_card=self._memories.on_card(other)), other)

    def pin_memory(self, original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        """The tensor itself: pages of the host are no memory of the card's."""
        return tensor

    def share_memory(self, original: Any, tensor: Tensor) -> Any:
        """Only a host tensor is moved to shared memory; one on a card is shared as it is."""
        return tensor if self._memories.on_card(tensor) else original(tensor)

    def repr(self, original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> str:
        """What is known of a traced tensor; it has no values to print."""
        if not self._memories.on_card(tensor) and not is_reserved(tensor.untyped_storage()):
            return str(original(tensor, *args, **kwargs))
        return f"tensor(..., size={tuple(tensor.shape)}, dtype={tensor.dtype}, traced: no values)"

    def deepcopy(self, original: Any, tensor: Tensor, memo: dict[int, Any]) -> Any:
        """A copy on the card of what is there."""
        if not self._memories.on_card(tensor) and not is_reserved(tensor.untyped_storage()):
            return original(tensor, memo)
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        return memo[id(tensor)]

    def iter(self, original: Any, tensor: Tensor) -> Iterator[Tensor]:
        """The elements of a tensor; the first ones of a long one whose length is assumed."""
        length = len(tensor) if tensor.dim() else 0
        if length > _LOOP_LIMIT and self._memories.has_assumed_length(tensor):
            self._memories.note(f"a loop over {length} elements, as many as are assumed, ends after {_LOOP_LIMIT}")
            tensor = tensor[:_LOOP_LIMIT]
        elements: Iterator[Tensor] = original(tensor)
        return elements

    def reader(self, name: str) -> Callable[..., Any]:
        """A replacement for a method that reads memory without an operation that a recorder could see."""

        def reader(original: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._memories.on_card(tensor):
                tensor = self._host_copy(tensor, f"Tensor.{name}")
            return original(tensor, *args, **kwargs)

        return reader

    def tensor_of(self, original: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        """A new tensor of numbers, arrays and tensors, where `device` says."""
        device = kwargs.pop("device", None)
        if isinstance(data, Tensor):
            made = self._placed(data, on_card=self._memories.on_card(data))
        else:
            data = tree_map(lambda one: one.tolist() if isinstance(one, Tensor) else one, data)
            made = original(data, *args, **kwargs, device=None if device is None else HOST)
            args, kwargs = (), {}
        if device is not None and is_memory(device):
            made = self._placed(made, on_card=is_card(device))
        elif device is not None:
            kwargs["device"] = device
        return original(made, *args, **kwargs) if args or kwargs else made

    def _placed(self, tensor: Tensor, *, on_card: bool) -> Tensor:
        if self._memories.on_card(tensor) == on_card:
            return tensor
        if on_card:
            return self._memories.bring(tensor)
        if tensor.requires_grad and torch.is_grad_enabled():
            return tensor  # its gradient flows back to the card: it is kept there
        return self._host_copy(tensor, "Tensor.cpu")

    def _host_copy(self, tensor: Tensor, what: str) -> Tensor:
        value = self._memories.read(tensor.detach(), what)
        if value.numel() * value.element_size() > _HOST_LIMIT_BYTES:
            return torch.zeros((), dtype=value.dtype).expand(value.shape)
        return value.clone(memory_format=torch.contiguous_format)


def _split_place(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The device or tensor among the arguments of `Tensor.to`, and the rest of them."""
    kwargs = dict(kwargs)
    place = kwargs.pop("device", kwargs.pop("other", None))
    if args and not isinstance(args[0], torch.dtype):
        place = args[0]
        names = ("non_blocking", "copy") if isinstance(place, Tensor) else ("dtype", "non_blocking", "copy")
        if len(args) > 1 and isinstance(args[1], bool):
            names = ("non_blocking", "copy")
        args, kwargs = (), {**kwargs, **dict(zip(names, args[1:], strict=False))}
    if kwargs.get("dtype", ...) is None:
        del kwargs["dtype"]
    return place, args, kwargs

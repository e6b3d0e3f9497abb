"""How a step's Python code sees the two memories: what moves between them, and what reads the card's.

A traced tensor says that it is on a CPU, so `.to(device)`, `.cpu()` and `.numpy()` would do nothing, or read memory
that is not there. Within `two_memories` they do what they do on a card: a device object (such as another tensor's)
and `cuda` mean the card, the word "cpu" means the host.
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
from vramfit.prediction.tracing.fake_tensors import HOST

_ALL_LAYERS = "no layer is dropped at random"
_HOST_LIMIT_BYTES = 64 << 20  # a larger copy on the host reads as zeros and holds no memory


class Memories(Protocol):
    """Who knows which tensors are on the card."""

    def on_card(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the card."""
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

    def note(self, assumed: str) -> None:
        """Remember that the caller's line relies on an assumption."""
        ...


@contextmanager
def two_memories(memories: Memories) -> Iterator[None]:
    """Within it, tensors move between host and card, and are read, as on a machine with a card."""
    access = _Access(memories)
    with ExitStack() as stack:
        for name in ("to", "cpu", "cuda", "type_as", "pin_memory", "share_memory_", "__repr__", "__deepcopy__"):
            swap(stack, Tensor, name, _method(getattr(access, name.strip("_")), getattr(Tensor, name)))
        for name in ("numpy", "__array__", "tolist", "__dlpack__", "__reduce_ex__"):
            swap(stack, Tensor, name, _method(access.reader(name), getattr(Tensor, name)))
        for name in ("tensor", "as_tensor", "asarray"):
            swap(stack, torch, name, _method(access.tensor_of, getattr(torch, name)))
        swap(stack, offload, "to_host", memories.park)
        swap(stack, offload, "to_card", lambda parked, _device: memories.bring(parked))
        stack.enter_context(_Factories(memories))
        yield


class _Factories(TorchFunctionMode):
    """Says of a new tensor on the host that it is: torch fills in the device where a call names none.

    A single number drawn there decides whether a layer is dropped, as transformers draws it: none is, so that all that
    a step may hold is held.
    """

    def __init__(self, memories: Memories) -> None:
        super().__init__()
        self._memories = memories

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FACTORIES:
            kwargs = {**(kwargs or {}), "device": _device((kwargs or {}).get("device"))}
        made = func(*args, **(kwargs or {}))
        if func is torch.rand and made.numel() == 1 and not self._memories.on_card(made):
            made.fill_(1 - torch.finfo(made.dtype).eps)
            self._memories.note(_ALL_LAYERS)
        return made


_FACTORIES = _device_constructors() - {torch.tensor, torch.as_tensor, torch.asarray}


def _device(named: Any) -> torch.device:
    """Where a new tensor goes: no device and the word "cpu" are the host; "cuda" and a device object the card."""
    if named is None or (named == "cpu" and isinstance(named, str)):
        return HOST
    device = torch.device(named)
    return torch.device("cpu") if device.type == "cuda" else device


def swap(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Replace an attribute until the stack unwinds; one that was inherited is inherited again."""
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)


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
            place = place.device if self._memories.on_card(place) else "cpu"
        if place is not None:
            tensor = self._placed(tensor, on_card=place != "cpu")
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
            made = original(data, *args, **kwargs)
            args, kwargs = (), {}
        made = made if device is None else self._placed(made, on_card=device != "cpu")
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
    if isinstance(place, str) and place != "cpu":
        place = torch.device("cpu") if place.startswith("cuda") else torch.device(place)
    return place, args, kwargs

"""Where traced tensors say they are: on device 0 of a card, while torch knows them as tensors of a CPU.

Code that asks (`x.device`, `x.is_cuda`, `torch.autocast(x.device.type)`) goes the way that it goes on a card. Where
torch's C++ tells Python of a device, it is told again here.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor

from vramfit.prediction.tracing.swapping import swap, swap_all
from vramfit.prediction.tracing.tensor_trees import tensors_in

CARD = torch.device("cuda", 0)
OnCard = Callable[[Tensor], bool]


@contextmanager
def card_places(on_card: OnCard, storage_on_card: Callable[[torch.UntypedStorage], bool]) -> Iterator[None]:
    """Within it, tensors and storages on the card say so."""
    with ExitStack() as stack:
        swap_all(stack, Tensor, _attributes(on_card))
        place = vars(torch.UntypedStorage).get("device") or torch.UntypedStorage.device
        of_storage = property(lambda self: CARD if storage_on_card(self) else place.__get__(self))
        swap(stack, torch.UntypedStorage, "device", of_storage)
        swap(stack, Tensor, "_make_wrapper_subclass", staticmethod(_wrapper_subclass))
        swap(stack, torch, "Generator", _Generator)
        stack.callback(torch.set_autocast_dtype, "cpu", torch.get_autocast_dtype("cpu"))
        swap_all(stack, torch, _autocast_states())
        swap(stack, torch._C, "_group_tensors_by_device_and_dtype", _grouped(on_card))
        yield


def is_card(place: Any) -> bool:
    """Whether a device, as code names it, is the card: a word, a number or a device."""
    return (isinstance(place, int) and not isinstance(place, bool)) or torch.device(place).type == "cuda"


def is_memory(place: Any) -> bool:
    """Whether a device is the card or the host, and no other, such as `meta`."""
    return is_card(place) or torch.device(place).type == "cpu"


def _attributes(on_card: OnCard) -> dict[str, Any]:
    device, is_cuda, is_cpu = (vars(torch._C.TensorBase)[name] for name in ("device", "is_cuda", "is_cpu"))
    get_device = Tensor.get_device
    return {
        "device": property(lambda self: CARD if on_card(self) else device.__get__(self)),
        "is_cuda": property(lambda self: on_card(self) or is_cuda.__get__(self)),
        "is_cpu": property(lambda self: not on_card(self) and is_cpu.__get__(self)),
        "get_device": lambda self: 0 if on_card(self) else get_device(self),
        "is_pinned": lambda *_: True,
        "record_stream": lambda *_: None,
    }


_make_wrapper = vars(torch._C.TensorBase)["_make_wrapper_subclass"].__func__


def _wrapper_subclass(*args: Any, **kwargs: Any) -> Tensor:
    """A tensor made of others, such as a nested one: to torch's C++ on a CPU as they are, for no CUDA is there."""

    def of_torch(value: Any) -> Any:
        return torch.device("cpu") if isinstance(value, torch.device) and is_card(value) else value

    made: Tensor = _make_wrapper(*map(of_torch, args), **{name: of_torch(value) for name, value in kwargs.items()})
    return made


def _grouped(on_card: OnCard) -> Callable[..., Any]:
    """Optimizers and clipping take lists of tensors apart by their device, as C++ has it."""
    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(lists: Any, with_indices: bool = False) -> Any:
        return {
            (CARD if any(map(on_card, tensors_in(found[0][0]))) else device, dtype): found
            for (device, dtype), found in group(lists, with_indices).items()
        }

    return grouped


class _Generator(torch._C.Generator):
    """A generator that says it is on the card and draws on the host."""

    _place: torch.device

    def __new__(cls, device: Any = "cpu") -> Self:
        made = super().__new__(cls, "cpu")  # type: ignore[call-arg]  # torch's stub has no constructor
        made._place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # torch's stub has it writable
        """Where it was asked for."""
        return self._place


def _autocast_states() -> dict[str, Any]:
    """CUDA's autocast is the CPU's, whose kernels follow CUDA's rules here; a CPU's own casts nothing on a card."""
    enabled, set_enabled = torch.is_autocast_enabled, torch.set_autocast_enabled
    dtype, set_dtype = torch.get_autocast_dtype, torch.set_autocast_dtype
    enabled_there = {"cpu": False}
    dtypes = {"cuda": torch.float16, "cpu": torch.bfloat16}

    def is_enabled(device: str = "cuda") -> bool:
        return enabled("cpu") if device == "cuda" else enabled_there.get(device, False)

    def set_enabled_of(*args: Any) -> None:
        *device, value = args
        if device in ([], ["cuda"]):
            set_enabled("cpu", value)
        else:
            enabled_there[device[0]] = value

    def dtype_of(device: str) -> torch.dtype:
        return dtypes.get(device) or dtype(device)

    def set_dtype_of(device: str, value: torch.dtype) -> None:
        dtypes[device] = value
        if device == "cuda":
            set_dtype("cpu", value)

    return {
        "is_autocast_enabled": is_enabled,
        "set_autocast_enabled": set_enabled_of,
        "get_autocast_dtype": dtype_of,
        "set_autocast_dtype": set_dtype_of,
        "get_autocast_gpu_dtype": lambda: dtype_of("cuda"),
        "set_autocast_gpu_dtype": lambda value: set_dtype_of("cuda", value),
    }

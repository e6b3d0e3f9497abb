"""`torch.cuda.FloatTensor` and its like, by which older scripts make tensors, move them and name their default."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_NAMES = ("Half", "BFloat16", "Float", "Double", "Char", "Byte", "Short", "Int", "Long", "Bool")


class _Kind(type):
    """The class of the types: a tensor is an instance of one by where it is and what it holds."""

    dtype: torch.dtype
    is_cuda = True

    def __call__(cls, *given: Any, **_: Any) -> Any:
        """A tensor on the card: of sizes, of values, or of another tensor."""
        if len(given) == 1 and isinstance(given[0], Tensor):
            return given[0].to("cuda", cls.dtype)
        return _on_host(cls.dtype)(*given).to("cuda")

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor) and value.is_cuda and value.dtype == cls.dtype


def _on_host(dtype: torch.dtype) -> Any:
    """The type of the host with the same name."""
    return next(kind for kind in map(_of_torch, _NAMES) if kind.dtype == dtype)


def _of_torch(name: str) -> Any:
    return getattr(torch, f"{name}Tensor")


def card_types() -> dict[str, Any]:
    """Types in place of those of `torch.cuda`, by their names."""
    made = {}
    for name in _NAMES:
        place = {"__module__": "torch.cuda", "dtype": _of_torch(name).dtype}
        made[f"{name}Tensor"] = _Kind(f"{name}Tensor", (), place)
    return made


def typed(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Tensor.type`, which names a tensor's type or moves it to one."""

    def type_of(self: Tensor, dtype: Any = None, non_blocking: bool = False, **_: Any) -> Any:
        if dtype is None:
            name = next((name for name in _NAMES if _of_torch(name).dtype == self.dtype), None)
            return original(self) if name is None or not self.is_cuda else f"torch.cuda.{name}Tensor"
        kind = dtype if isinstance(dtype, str) else f"{dtype.__module__}.{dtype.__name__}" if _is_type(dtype) else ""
        if not kind:
            return original(self, dtype)
        place = "cuda" if ".cuda." in kind else "cpu"
        return self.to(place, _of_torch(kind.rpartition(".")[2].removesuffix("Tensor")).dtype, non_blocking)

    return type_of


def _is_type(dtype: Any) -> bool:
    return not isinstance(dtype, torch.dtype)

"""The tensors in an operation's arguments and results."""

from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested tuples and lists, in order."""
    if isinstance(value, Tensor):
        return [value]
    found: list[Tensor] = []
    if isinstance(value, (list, tuple)):
        for part in value:
            if isinstance(part, Tensor):
                found.append(part)
            elif isinstance(part, (list, tuple)):
                found += tensors_in(part)
    return found


def tensors_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors among an operation's arguments, in order."""
    return tensors_in(args) + tensors_in(tuple(kwargs.values())) if kwargs else tensors_in(args)

"""The tensors in an operation's arguments and results."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


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


def patterns(args: tuple[Any, ...]) -> Any:
    """An operation's arguments with host tensors in place of its tensors, of their shapes and without their values."""
    return tree_map(
        lambda one: torch.zeros((), dtype=one.dtype).expand(one.shape) if isinstance(one, Tensor) else one, args
    )

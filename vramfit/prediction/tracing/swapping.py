"""Attributes of torch that are others for a while."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_replaced: dict[int, Any] = {}  # what a replacement stands for, by its address


def swap(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Replace an attribute until the stack unwinds; one that was inherited is inherited again."""
    if hasattr(owner, name):
        _replaced[id(value)] = getattr(owner, name)
        stack.callback(_replaced.pop, id(value), None)
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)


def swap_all(stack: ExitStack, owner: Any, values: dict[str, Any]) -> None:
    """Replace several attributes of one owner."""
    for name, value in values.items():
        swap(stack, owner, name, value)


@contextmanager
def scripting_sees_torch() -> Iterator[None]:
    """Within it `torch.jit.script` compiles what a replacement stands for: torch's own operators, found by address."""
    with ExitStack() as stack:
        find: Callable[[Any], Any] = torch.jit._builtins._find_builtin
        swap(stack, torch.jit._builtins, "_find_builtin", lambda function: find(_replaced.get(id(function), function)))
        yield

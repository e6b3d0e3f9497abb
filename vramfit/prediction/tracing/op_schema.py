"""What an operation does with its arguments, as its schema says: sees them anew, writes into them, or neither."""

from enum import Enum, auto
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.tensor_trees import tensors_in

_ATEN = torch.ops.aten


class Nature(Enum):
    """How an operation's results relate to its arguments."""

    VIEW = auto()  # another view of an argument: no kernel, no memory
    WRITE = auto()  # an argument it wrote into, or nothing
    NEW = auto()  # at least one new tensor


# Their schemas say they make something new; they do not.
_SECRET_VIEWS = {_ATEN._unsafe_view.default, _ATEN.lift.default}
# Their schemas say they write; what they write is what the tensor is, which a kernel need not do.
_RESHAPING = {"set_", "resize_", "resize_as_", "as_strided_", "t_", "transpose_", "squeeze_", "unsqueeze_", "detach_"}


@cache
def nature_of(func: Any) -> Nature:
    """The nature of an operation."""
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    if func in _SECRET_VIEWS or name in _RESHAPING:
        return Nature.VIEW
    aliases = [result.alias_info for result in schema.returns]
    if aliases and all(alias is not None and not alias.is_write for alias in aliases):
        return Nature.VIEW
    writes = any(argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments)
    if writes and all(alias is not None for alias in aliases):
        return Nature.WRITE
    return Nature.NEW


def with_defaults(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments of a call, those too that it leaves at their defaults."""
    left = func._schema.arguments[len(args) :]
    return (*args, *(argument.default_value for argument in left if not argument.kwarg_only))


def operation(name: str) -> Any:
    """The overload that a name such as `pow.Scalar` stands for."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def written_argument(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation that only writes returns: the arguments it wrote into, or None."""
    results = [_argument(place, args, kwargs) for place in _written(func)]
    if not results:
        return None
    return results[0] if len(results) == 1 else tuple(results)


def written_tensors(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operation writes into, whether it returns them or not."""
    given = (_given(place, args, kwargs) for place in _targets(func))
    return [tensor for value in given for tensor in tensors_in(value)]


@cache
def _targets(func: Any) -> tuple[tuple[int, str], ...]:
    arguments = enumerate(func._schema.arguments)
    return tuple((position, one.name) for position, one in arguments if one.alias_info and one.alias_info.is_write)


def _given(place: tuple[int, str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    position, name = place
    return kwargs.get(name) if position >= len(args) else args[position]


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Position and name of the argument that each result is."""
    places = []
    for result in func._schema.returns:
        before = result.alias_info.before_set
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.before_set == before:
                places.append((position, argument.name))
                break
    return tuple(places)


def _argument(place: tuple[int, str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    position, name = place
    return kwargs[name] if name in kwargs else args[position]

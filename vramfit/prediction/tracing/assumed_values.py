"""What results are taken to hold where they are computed from unknown values.

A mask keeps everything, an index is the last one, a whole number with a bound is at its bound. Of the boxes that a
detector proposes every other one lies on one of its targets, so that a sampler finds as many positive and as many
negative ones as it takes at most: a training begins with few positive ones and comes near that later.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.tensor_trees import tensors_in
from vramfit.prediction.tracing.values import Number, Values

_ATEN = torch.ops.aten
KEPT = "a mask keeps everything"
FINITE = "values are finite"
_LAST = "an index found on the card is the last"
_MATCHED = "every other box proposed on the card matches one of the sample's"
_ORDER = "values on the card are in order"
_BOUND = "a whole number is at its bound"
_UNEQUAL = "a number on the card equals no other"

Rule = Callable[[Values, Any, Any, list[Tensor]], None]


def is_flag(args: Any, out: list[Tensor]) -> bool:
    """Whether an operation compares single numbers."""
    single = len(out) == 1 and out[0].dtype is torch.bool and out[0].dim() == 0
    return single and all(tensor.dim() == 0 for tensor in tensors_in(args))


def _filled(number: Number, why: str) -> Rule:
    def rule(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # noqa: ARG001  # a rule's signature
        for tensor in out:
            values.fill(tensor, number, why)

    return rule


def _compared(*, equal: bool) -> Rule:
    """A value compared with itself, or with infinity or NaN: the tests for what is finite, as torch composes them."""

    def rule(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # noqa: ARG001  # a rule's signature
        this, other = args[0], args[1]
        if isinstance(other, float) and not math.isfinite(other):
            values.fill(out[0], not equal, FINITE)
        elif isinstance(other, Tensor) and _is_same(this, other):
            values.fill(out[0], equal, FINITE)
        elif is_flag(args, out):
            values.fill(out[0], not equal, _UNEQUAL)

    return rule


def _is_same(this: Tensor, other: Tensor) -> bool:
    same = this is other or this.untyped_storage()._cdata == other.untyped_storage()._cdata
    return bool(same and this.storage_offset() == other.storage_offset() and this.stride() == other.stride())


def _counted(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # a rule's signature
    """How many a mask keeps: all that were summed."""
    if args[0].dtype is torch.bool or func.overloadpacket is _ATEN.count_nonzero:
        values.fill(out[0], args[0].numel() // max(1, out[0].numel()), KEPT)


def _cast(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # noqa: ARG001  # a rule's signature
    """A mask as numbers: it keeps everything."""
    if args[0].dtype is torch.bool:
        values.fill(out[0], 1, KEPT)


def _numbered(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # noqa: ARG001  # a rule's signature
    """The running count of what a mask keeps: of everything."""
    if args[0].dtype is torch.bool and args[0].dim() and values.small(out[0]):
        values.set(out[0], torch.ones((), dtype=torch.bool).expand(args[0].shape).cumsum(args[1]), KEPT)


def _last(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # noqa: ARG001  # a rule's signature
    """Where an extreme lies: at the end, so that what is cut there is longest; of many, each other place is one's too.

    An expert that no token is sent to would have no gradient.
    """
    found, dim = out[-1], args[1] if len(args) > 1 and isinstance(args[1], int) else None
    length = args[0].numel() if dim is None else args[0].shape[dim] if args[0].dim() else 1
    if found.numel() > 1 and length and values.small(found):
        searches = torch.arange(found.numel()).view(found.shape)
        values.set(found, torch.where(searches < length, length - 1 - searches, length - 1), _LAST)
    else:
        values.fill(found, max(0, length - 1), _LAST)


def _last_along(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:
    if len(out) == 2:  # else there are no indices
        _last(values, func, args, out)


def _in_order(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # a rule's signature
    """Indices of a sort along a dimension: as they were; the first of many searches for a few choose all in turn."""
    numbers = [value for value in args[1:] if isinstance(value, int) and not isinstance(value, bool)]
    dim = numbers[-1] if numbers and (func.overloadpacket is not _ATEN.topk or len(numbers) > 1) else -1
    for tensor in out:
        if tensor.dtype is torch.int64 and tensor.dim() and values.small(tensor):
            length, chosen = args[0].shape[dim], tensor.shape[dim]
            searches = torch.arange(tensor.numel() // max(1, chosen))[:, None]
            begins = torch.where(searches * chosen < length, searches * chosen, 0)
            rows = (begins + torch.arange(chosen)) % max(1, length)
            values.set(tensor, rows.view(*tensor.movedim(dim, -1).shape).movedim(-1, dim), _ORDER)


def _bounded(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # a rule's signature
    """A whole number that is clamped: the bound. A clamped activation is not known by it, for few lie there."""
    place = 1 if func.overloadpacket is _ATEN.clamp_max else 2
    bound = args[place] if len(args) > place else None
    if isinstance(bound, int) and not out[0].is_floating_point():
        values.fill(out[0], bound, _BOUND)


def _binned(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # a rule's signature
    """Which bin a number falls into: the one past the last."""
    edges = args[0] if func.overloadpacket is _ATEN.searchsorted else args[1]
    if isinstance(edges, Tensor) and edges.dim():
        values.fill(out[0], edges.shape[-1], _BOUND)


def _joined_boxes(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # noqa: ARG001  # a rule's signature
    """Boxes of the card joined by known ones, as a detector adds its targets to its proposals.

    Every other unknown box lies on a known one, in turn, the rest nowhere: neither kind is few wherever a list is cut.
    """
    parts = [values.of(part) for part in args[0]]
    boxes = all(part.dim() == 2 and part.shape[1] == 4 and part.is_floating_point() for part in args[0])
    known = [part for part in parts if part is not None and part.numel()]
    if boxes and known and values.small(out[0]):
        targets = torch.cat(known)
        held = [_every_other(targets, one) if part is None else part for one, part in zip(args[0], parts, strict=True)]
        values.set(out[0], torch.cat(held, *args[1:]), _MATCHED)


def _every_other(targets: Tensor, boxes: Tensor) -> Tensor:
    """As many boxes as are given: the first, third and so on are the targets in turn, the others zero."""
    held = targets.new_zeros(boxes.shape)
    held[::2] = targets[torch.arange(len(held[::2])) % len(targets)]
    return held


RULES: dict[Any, Rule] = {
    _ATEN.cat: _joined_boxes,
    _ATEN.clamp: _bounded,
    _ATEN.clamp_max: _bounded,
    _ATEN.bucketize: _binned,
    _ATEN.searchsorted: _binned,
    _ATEN.isnan: _filled(number=False, why=FINITE),
    _ATEN.isinf: _filled(number=False, why=FINITE),
    _ATEN.isposinf: _filled(number=False, why=FINITE),
    _ATEN.isneginf: _filled(number=False, why=FINITE),
    _ATEN.isfinite: _filled(number=True, why=FINITE),
    _ATEN.any: _filled(number=True, why=KEPT),
    _ATEN.all: _filled(number=True, why=KEPT),
    _ATEN.eq: _compared(equal=True),
    _ATEN.ne: _compared(equal=False),
    _ATEN.sum: _counted,
    _ATEN.count_nonzero: _counted,
    _ATEN._to_copy: _cast,
    _ATEN.cumsum: _numbered,
    _ATEN.argmax: _last,
    _ATEN.argmin: _last,
    _ATEN.max: _last_along,
    _ATEN.min: _last_along,
    _ATEN.sort: _in_order,
    _ATEN.argsort: _in_order,
    _ATEN.topk: _in_order,
}

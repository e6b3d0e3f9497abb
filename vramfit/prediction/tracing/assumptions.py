"""What is assumed of values that only a card has, as in a healthy run at its largest, and where it was relied on.

A flag answers as when nothing is wrong: values are finite, nothing is empty, nobody leaves early. A count is its
largest: a mask keeps everything, NMS keeps every box, an index is the last one. A number read back is 1. Of the boxes
that a detector proposes every other one lies on one of its targets, so that a sampler finds as many positive and as
many negative ones as it takes at most; a training begins with few positive ones and comes near that later.
"""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.op_schema import with_defaults
from vramfit.prediction.tracing.quantized import OUTLIERS, WITHOUT_OUTLIERS
from vramfit.prediction.tracing.tensor_trees import tensors_in
from vramfit.prediction.tracing.values import Number, Values

_ATEN = torch.ops.aten
_FINITE = "values are finite"
_KEPT = "a mask keeps everything"
_LAST = "an index found on the card is the last"
_EQUAL = "tensors that are compared as a whole are equal"
_DIFFERENT = "all values are different"
_BOXES = "NMS keeps every box"
_MATCHED = "every other box proposed on the card matches one of the sample's"
_ORDER = "values on the card are in order"
_ONE = "a number read from the card is 1"
_SAMPLE = "sizes are those of the sample batch"
_TRACE = str(Path(__file__).with_name("trace.py"))
_NOT_THEIRS = (f"{Path(__file__).parents[2]}{os.sep}", f"{Path(torch.__file__).parent}{os.sep}")

Rule = Callable[[Values, Any, Any, list[Tensor]], None]


class NeedsValues(RuntimeError):
    """An operation needs values that only a card has."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs values that only a card has")
        self.func = what


class Assumptions:
    """Answers for values that are not known, and a list of what was assumed: `file:line: what`."""

    def __init__(self, values: Values, noted: list[str], *, strict: bool = False) -> None:
        self._values = values
        self._noted = noted
        self._strict = strict

    def note(self, why: str) -> None:
        """Remember that the caller's line relies on an assumption; "" is none."""
        said = f"{_place()}: {why}"
        if why and said not in self._noted:
            self._noted.append(said)

    def infer(self, func: Any, args: Any, out: list[Tensor]) -> None:
        """Say what the results of an operation on unknown values are taken to be, where there is a rule."""
        if self._strict:
            return
        rule = _RULES.get(func.overloadpacket)
        if rule is not None:
            rule(self._values, func, args, out)
        elif _is_flag(args, out):
            given = [self.values_of(tensor)[0] for tensor in tensors_in(args)]
            result = self._values.computed_from(func, args, given)
            if result is not None:
                self._values.fill(out[0], bool(result), _ONE)

    def values_of(self, tensor: Tensor) -> tuple[Tensor, str]:
        """The values of a tensor as a host tensor, and what was assumed, "" if they are known."""
        known = self._values.of(tensor)
        if known is not None:
            return known, self._values.why([tensor])
        number, why = _everywhere(tensor)
        return torch.tensor(number, dtype=tensor.dtype).expand(tensor.shape), why

    def number(self, tensor: Tensor, what: str) -> Number:
        """What `.item()` answers; notes what was assumed. `what` names the operation."""
        number: Number = self.read(tensor, what).item()
        return number

    def agree(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> bool:
        """What an operation answers that compares whole tensors: they agree, where that is not known."""
        self._refuse(str(func))
        answer = self._values.computed(func, args, kwargs, given)
        if answer is None:
            self.note(_EQUAL)
        return answer is None or bool(answer)

    def read(self, tensor: Tensor, what: str) -> Tensor:
        """The values as a host tensor that must not be written into; notes what was assumed."""
        self._refuse(what)
        value, why = self.values_of(tensor)
        self.note(why)
        return value

    def _refuse(self, what: str) -> None:
        if self._strict:
            raise NeedsValues(what)

    def shaped(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> tuple[Any, str]:
        """What an operation whose result's shape depends on values returns, as host tensors, and what was assumed."""
        self._refuse(str(func))
        result, why = self._values.computed(func, args, kwargs, given), self._values.why(given)
        name, args = func.name().partition(".")[0], with_defaults(func, args)
        if "unique" in name and why:  # one number everywhere stands for values that differ
            result = None
        if name == "aten::_unique2" and result is None:
            result, why = _all_different(args, self._values.counts.of(args[0])), _DIFFERENT
        if result is None:
            largest, words = _LARGEST.get(name, (None, _ONE))
            result = largest(args) if largest else self._ran(func, args, kwargs, given)
            why = why or words
        if result is None:
            raise NeedsValues(str(func))
        self.note(why or _SAMPLE)
        return result, why

    def _ran(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> Any:
        if sum(tensor.numel() for tensor in given) > _AFFORDABLE:
            return None
        return self._values.computed_from(func, args, [self.values_of(tensor)[0] for tensor in given], kwargs)


_LISTED = 1 << 20  # positions that are listed for what is indexed by them to be known
_AFFORDABLE = 1 << 24  # elements that a kernel on the CPU may work through for the shape of its result


def _everywhere(tensor: Tensor) -> tuple[Number, str]:
    return (True, _KEPT) if tensor.dtype is torch.bool else (1, _ONE)


def _all_positions(args: Any) -> Tensor:
    shape = args[0].shape
    if shape.numel() <= _LISTED:
        return torch.ones(shape, dtype=torch.bool).nonzero()
    return torch.zeros((), dtype=torch.int64).expand(shape.numel(), len(shape))


def _all_chosen(args: Any) -> Tensor:
    return torch.zeros((), dtype=args[0].dtype).expand(torch.broadcast_shapes(args[0].shape, args[1].shape).numel())


def _all_boxes(args: Any) -> Tensor:
    return torch.arange(args[0].shape[0])


def _all_different(args: Any, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `_unique2` returns of so many values."""
    whole = torch.zeros((), dtype=torch.int64)
    _, _, inverse, counts = args
    values = torch.zeros((), dtype=args[0].dtype).expand(count)
    return values, whole.expand(args[0].shape if inverse else (0,)), whole.expand(count if counts else 0)


def _all_rows(args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What `unique_dim` returns of slices that are all different."""
    length = args[0].shape[args[1]]
    whole = torch.zeros((), dtype=torch.int64).expand(length)
    return torch.zeros((), dtype=args[0].dtype).expand(args[0].shape), whole, whole


def _all_runs(args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What `unique_consecutive` returns of a tensor that changes at each element."""
    value, inverse, counts, dim = args
    if dim is not None:
        return _all_rows((value, dim))
    return _all_different((value, True, inverse, counts), value.numel())


def _is_flag(args: Any, out: list[Tensor]) -> bool:
    """Whether an operation compares single numbers."""
    single = len(out) == 1 and out[0].dtype is torch.bool and out[0].dim() == 0
    return single and all(tensor.dim() == 0 for tensor in tensors_in(args))


def _place() -> str:
    """File and line of the innermost caller that is neither torch nor vramfit; "the step" where there is none."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THEIRS):
        if frame.f_code.co_filename == _TRACE:
            return "the step"
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


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
            values.fill(out[0], not equal, _FINITE)
        elif isinstance(other, Tensor) and _is_same(this, other):
            values.fill(out[0], equal, _FINITE)
        elif _is_flag(args, out):
            values.fill(out[0], not equal, _ONE)

    return rule


def _is_same(this: Tensor, other: Tensor) -> bool:
    same = this is other or this.untyped_storage()._cdata == other.untyped_storage()._cdata
    return bool(same and this.storage_offset() == other.storage_offset() and this.stride() == other.stride())


def _counted(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # a rule's signature
    """How many a mask keeps: all that were summed."""
    if args[0].dtype is torch.bool or func.overloadpacket is _ATEN.count_nonzero:
        values.fill(out[0], args[0].numel() // max(1, out[0].numel()), _KEPT)


def _last(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # noqa: ARG001  # a rule's signature
    """Where an extreme lies: at the end, so that what is cut there is longest."""
    dim = args[1] if len(args) > 1 and isinstance(args[1], int) else None
    length = args[0].numel() if dim is None else args[0].shape[dim] if args[0].dim() else 1
    values.fill(out[-1], max(0, length - 1), _LAST)


def _last_along(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:
    if len(out) == 2:  # else there are no indices
        _last(values, func, args, out)


def _in_order(values: Values, func: Any, args: Any, out: list[Tensor]) -> None:  # a rule's signature
    """Indices of a sort along a dimension: as they were."""
    numbers = [value for value in args[1:] if isinstance(value, int) and not isinstance(value, bool)]
    dim = numbers[-1] if numbers and (func.overloadpacket is not _ATEN.topk or len(numbers) > 1) else -1
    for tensor in out:
        if tensor.dtype is torch.int64 and tensor.dim() and values.small(tensor):
            shape = [1] * tensor.dim()
            shape[dim] = tensor.shape[dim]
            values.set(tensor, torch.arange(tensor.shape[dim]).view(shape).expand(tensor.shape), _ORDER)


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


_RULES: dict[Any, Rule] = {
    _ATEN.cat: _joined_boxes,
    _ATEN.isnan: _filled(number=False, why=_FINITE),
    _ATEN.isinf: _filled(number=False, why=_FINITE),
    _ATEN.isposinf: _filled(number=False, why=_FINITE),
    _ATEN.isneginf: _filled(number=False, why=_FINITE),
    _ATEN.isfinite: _filled(number=True, why=_FINITE),
    _ATEN.any: _filled(number=True, why=_KEPT),
    _ATEN.all: _filled(number=True, why=_KEPT),
    _ATEN.eq: _compared(equal=True),
    _ATEN.ne: _compared(equal=False),
    _ATEN.sum: _counted,
    _ATEN.count_nonzero: _counted,
    _ATEN.argmax: _last,
    _ATEN.argmin: _last,
    _ATEN.max: _last_along,
    _ATEN.min: _last_along,
    _ATEN.sort: _in_order,
    _ATEN.argsort: _in_order,
    _ATEN.topk: _in_order,
}

# What operations return at most, whose results have as many elements as the values say; and the assumption.
_LARGEST: dict[str, tuple[Callable[[Any], Any], str]] = {
    "aten::nonzero": (_all_positions, _KEPT),
    "aten::masked_select": (_all_chosen, _KEPT),
    "aten::unique_dim": (_all_rows, _DIFFERENT),
    "aten::unique_consecutive": (_all_runs, _DIFFERENT),
    "torchvision::nms": (_all_boxes, _BOXES),
    **{name: (result, OUTLIERS) for name, result in WITHOUT_OUTLIERS.items()},
}

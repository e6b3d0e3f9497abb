"""How many elements there are at most in results that have as many as values on the card say, and what that assumes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.assumed_values import KEPT
from vramfit.prediction.tracing.quantized import OUTLIERS, WITHOUT_OUTLIERS

DIFFERENT = "all values are different"
_BOXES = "NMS keeps every box"
_LISTED = 1 << 20  # positions that are listed for what is indexed by them to be known


def _all_positions(args: Any) -> Tensor:
    shape = args[0].shape
    if shape.numel() <= _LISTED:
        return torch.ones(shape, dtype=torch.bool).nonzero()
    return torch.zeros((), dtype=torch.int64).expand(shape.numel(), len(shape))


def _all_chosen(args: Any) -> Tensor:
    return torch.zeros((), dtype=args[0].dtype).expand(torch.broadcast_shapes(args[0].shape, args[1].shape).numel())


def _all_boxes(args: Any) -> Tensor:
    return torch.arange(args[0].shape[0])


def all_different(args: Any, count: int) -> tuple[Tensor, Tensor, Tensor]:
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
    return all_different((value, True, inverse, counts), value.numel())


# What operations return at most, whose results have as many elements as the values say; and the assumption.
LARGEST: dict[str, tuple[Callable[[Any], Any], str]] = {
    "aten::nonzero": (_all_positions, KEPT),
    "aten::masked_select": (_all_chosen, KEPT),
    "aten::unique_dim": (_all_rows, DIFFERENT),
    "aten::unique_consecutive": (_all_runs, DIFFERENT),
    "torchvision::nms": (_all_boxes, _BOXES),
    **{name: (result, OUTLIERS) for name, result in WITHOUT_OUTLIERS.items()},
}

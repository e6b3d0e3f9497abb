"""What torch's own formulas of gradients write into tensors that they have just made.

The gradient of what was gathered, indexed, sorted or chosen is added into a tensor of zeros, that of a binary cross
entropy is computed in one tensor. Under a dispatch mode, which a trace is, a formula makes another tensor for each
result (`areAnyTensorSubclassLike` in FunctionsManual.cpp and TensorAdvancedIndexing.cpp); on a card it writes in place.

Known limitation: where branches of a network join, as around a residual block, a card adds one gradient to the other in
place if nothing else holds it (`can_accumulate_inplace` in input_buffer.cpp), and a trace makes a tensor for the sum.
"""

from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_IN_PLACE: dict[Any, Any] = {
    _ATEN.index_add.default: _ATEN.index_add_.default,
    _ATEN.index_put.default: _ATEN.index_put_.default,
    _ATEN.masked_scatter.default: _ATEN.masked_scatter_.default,
    _ATEN.put.default: _ATEN.put_.default,
    _ATEN.scatter.src: _ATEN.scatter_.src,
    _ATEN.scatter_add.default: _ATEN.scatter_add_.default,
}
# Nodes of autograd whose formula does so, without the number of the overload.
_FORMULAS = {
    *("GatherBackward", "IndexBackward", "IndexSelectBackward", "MaskedSelectBackward", "TakeBackward"),
    *("MaxBackward", "MinBackward", "MedianBackward", "NanmedianBackward", "ModeBackward", "KthvalueBackward"),
    *("SortBackward", "TopkBackward", "CummaxBackward", "CumminBackward"),
}
_ELEMENTWISE: dict[Any, Any] = {
    _ATEN.mul.Tensor: _ATEN.mul_.Tensor,
    _ATEN.sub.Tensor: _ATEN.sub_.Tensor,
}
_OF_ELEMENTS = {"BinaryCrossEntropyWithLogitsBackward"}


def as_on_a_card(func: Any, args: tuple[Any, ...]) -> Any:
    """The operation that a card runs for this one here: that which writes, within a formula that does."""
    if torch.is_grad_enabled() or not (func in _IN_PLACE or func in _ELEMENTWISE):
        return func  # of a forward pass, or one that is computed again
    node: Any = torch._C._current_autograd_node()
    name = node.name() if node is not None else ""
    formula = name.rstrip("0123456789")
    if formula == name:
        return func  # a backward pass of a job's own: torch numbers its formulas
    if formula in _FORMULAS:
        return _IN_PLACE.get(func, func)
    return _ELEMENTWISE.get(func, func) if formula in _OF_ELEMENTS and _is_written(node, *args[:2]) else func


def _is_written(node: Any, value: Tensor, other: Tensor) -> bool:
    """Whether an element-wise result is written over `value`: it is as large, and no weight that the loss was given."""
    weight = node._saved_pos_weight
    given = weight is not None and weight.untyped_storage()._cdata == value.untyped_storage()._cdata
    return not given and value.shape == torch.broadcast_shapes(value.shape, other.shape)

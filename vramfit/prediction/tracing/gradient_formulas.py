"""What torch's own formulas of gradients write into zeros that they have just made.

The gradient of what was gathered, indexed, sorted or chosen is added into a tensor of zeros. Under a dispatch mode,
which a trace is, a formula makes another tensor for the sum (`areAnyTensorSubclassLike` in FunctionsManual.cpp and
TensorAdvancedIndexing.cpp); on a card it writes in place.
"""

from typing import Any

import torch

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


def as_on_a_card(func: Any) -> Any:
    """The operation that a card runs for this one here: that which writes, within a formula that does."""
    written = _IN_PLACE.get(func)
    if written is None or torch.is_grad_enabled():  # a forward pass, or one that is computed again
        return func
    node: Any = torch._C._current_autograd_node()
    return written if node is not None and node.name().rstrip("0123456789") in _FORMULAS else func

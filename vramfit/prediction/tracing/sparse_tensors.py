"""Operations on sparse (COO) tensors, as operations on their indices and values, which are the tensors with memory.

Known limitation: where indices repeat, coalescing is taken to keep them all, the most that there can be.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_leaves, tree_map

from vramfit.prediction.tracing.op_schema import Nature, nature_of, written_argument

_ATEN = torch.ops.aten
# Keep the tensors that they are given, or tell of the form alone.
_WRAPPING = {
    *(_ATEN._sparse_coo_tensor_with_dims_and_tensors, _ATEN._sparse_coo_tensor_unsafe, _ATEN._coalesced_),
    *(_ATEN._sparse_coo_tensor_with_dims, _ATEN.sparse_dim, _ATEN.dense_dim, _ATEN._dimV, _ATEN._dimI),
}
Dispatch = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def concerns_sparse(func: Any, given: list[Tensor]) -> bool:
    """Whether an operation makes, reads or writes a sparse tensor."""
    return func.overloadpacket in _WRAPPING or any(tensor.layout is torch.sparse_coo for tensor in given)


def run_sparse(dispatch: Dispatch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation on sparse tensors returns; `dispatch` runs and records one on dense tensors."""
    packet, nature = func.overloadpacket, nature_of(func)
    if packet in _WRAPPING or nature is Nature.VIEW or _tells_of_form(func):
        return func(*args, **kwargs)
    if nature is Nature.WRITE:
        return written_argument(func, args, kwargs)
    if packet in _SPECIAL:
        return _SPECIAL[packet](dispatch, args)
    return _on_values(dispatch, func, args, kwargs)


def _tells_of_form(func: Any) -> bool:
    """Whether an operation returns no tensors, but how many values there are and such."""
    return all(isinstance(one.type, (torch.IntType, torch.BoolType)) for one in func._schema.returns)


def dense_parts(tensor: Tensor) -> list[Tensor]:
    """The tensors with memory that make up a tensor: itself, a sparse one's indices and values, or a DTensor's part."""
    if is_traceable_wrapper_subclass_type(type(tensor)):
        names: list[str] = tensor.__tensor_flatten__()[0]  # type: ignore[attr-defined]  # a subclass with parts has it
        parts = [getattr(tensor, name) for name in names]
        return [part for one in parts if isinstance(one, Tensor) for part in dense_parts(one)]
    return [tensor._indices(), tensor._values()] if _is_sparse(tensor) else [tensor]


def _is_sparse(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.sparse_coo


def _on_values(dispatch: Dispatch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation on each value; the places stay as they were."""
    sparse = next(value for value in tree_leaves((args, kwargs)) if _is_sparse(value))
    args, kwargs = tree_map(lambda value: value._values() if _is_sparse(value) else value, (args, kwargs))
    result = dispatch(func, args, kwargs)
    alike = isinstance(result, Tensor) and result.shape == sparse._values().shape
    return _like(sparse, sparse._indices(), result) if alike else result


def _coalesced(dispatch: Dispatch, args: tuple[Any, ...]) -> Tensor:
    parts = [dispatch(_ATEN.clone.default, (part,), {}) for part in dense_parts(args[0])]
    return _like(args[0], *parts)._coalesced_(True)


def _copied(dispatch: Dispatch, args: tuple[Any, ...]) -> Tensor:
    return _like(args[0], *(dispatch(_ATEN.clone.default, (part,), {}) for part in dense_parts(args[0])))


def _masked(dispatch: Dispatch, args: tuple[Any, ...]) -> Tensor:
    """Values of a dense tensor at the places of a sparse one."""
    dense, mask = args[:2]
    values = dispatch(_ATEN.new_empty.default, (dense, mask._values().shape), {})
    return _like(mask, mask._indices(), values)


def _dense(dispatch: Dispatch, args: tuple[Any, ...]) -> Any:
    return dispatch(_ATEN.new_zeros.default, (args[0]._values(), args[0].shape), {})


def _summed(dispatch: Dispatch, args: tuple[Any, ...]) -> Any:
    """Two sparse tensors added: both one's places and the other's. A dense and a sparse one are dense."""
    this, other = args[:2]
    if not (_is_sparse(this) and _is_sparse(other)):
        return dispatch(_ATEN.clone.default, (other if _is_sparse(this) else this,), {})
    indices = dispatch(_ATEN.cat.default, ([this._indices(), other._indices()], 1), {})
    values = dispatch(_ATEN.cat.default, ([this._values(), other._values()], 0), {})
    return _like(this, indices, values)


def _product(dispatch: Dispatch, args: tuple[Any, ...]) -> Any:
    """A matrix product of which one factor is sparse: dense. cuSPARSE's buffers are not counted."""
    left, right = args[-2:]
    dense = left if _is_sparse(right) else right
    return dispatch(_ATEN.new_empty.default, (dense, [*left.shape[:-1], right.shape[-1]]), {})


def _like(sparse: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    return sparse_of(indices, values, tuple(sparse.shape), coalesced=sparse.is_coalesced())


def sparse_of(indices: Tensor, values: Tensor, size: tuple[int, ...], *, coalesced: bool) -> Tensor:
    """The sparse tensor of these indices [D, N] and values [N, ...], which it keeps; nothing is checked."""
    made: Tensor = _ATEN._sparse_coo_tensor_with_dims_and_tensors.default(
        indices.shape[0],
        len(size) - indices.shape[0],
        size,
        indices,
        values,
        dtype=values.dtype,
        layout=torch.sparse_coo,
        device=torch.device("meta" if values.is_meta else "cpu"),  # where torch has them, whatever they say
    )
    return made._coalesced_(coalesced)


_SPECIAL: dict[Any, Callable[[Dispatch, tuple[Any, ...]], Any]] = {
    _ATEN._coalesce: _coalesced,
    _ATEN.clone: _copied,
    _ATEN.sparse_mask: _masked,
    _ATEN._to_dense: _dense,
    _ATEN.add: _summed,
    **dict.fromkeys((_ATEN.mm, _ATEN.addmm, _ATEN._sparse_addmm), _product),
}

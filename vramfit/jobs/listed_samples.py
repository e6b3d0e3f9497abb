"""Batches whose samples differ in size, so that each is an item of a list: `model(images, targets)` of detection.

Which lists of a batch hold a sample each is seen from the sizes of the tensors in them, and then marked by a type.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import SequenceKey, register_pytree_node, tree_leaves

Tree = Any


class Samples(list[Any]):
    """A list of samples: one item each, a tensor or a dict or tuple of tensors of any size."""


register_pytree_node(
    Samples,
    lambda samples: (list(samples), None),
    lambda items, _: Samples(items),
    serialized_type_name=f"{__name__}.Samples",
    flatten_with_keys_fn=lambda samples: ([(SequenceKey(at), item) for at, item in enumerate(samples)], None),
)


def is_samples(value: Any) -> bool:
    """Whether a part of a batch is a list of samples; where a walk through a tree of samples ends."""
    return isinstance(value, Samples)


def mark_samples(batch: Tree, count: int) -> Tree:
    """A batch of `count` samples with its lists of samples as `Samples`: lists of that length, not all batched."""
    if is_pair(batch):
        return type(batch)(_marked(part, count) for part in batch)
    return _marked(batch, count)


def find_samples(batch: Tree) -> Tree:
    """The same for a batch of which nobody says how many samples it has; as it is where its tensors agree.

    Known limitation: where each sample's tensors have one length, as RGB images alone have, a list is several inputs.
    """
    tensors = _tensors(batch)
    if len({_length(tensor) for tensor in tensors}) < 2 or _holds(batch, is_samples):
        return batch
    for count in _lengths_on_the_way(batch):
        marked = mark_samples(batch, count)
        outside = [leaf for leaf in tree_leaves(marked, is_leaf=is_samples) if isinstance(leaf, Tensor)]
        if _holds(marked, is_samples) and all(_length(tensor) == count for tensor in outside):
            return marked
    return batch


def is_pair(batch: Tree) -> bool:
    """Whether a batch is (inputs, targets), and neither a list of two samples nor something else."""
    return type(batch) in (tuple, list) and len(batch) == 2 and not _is_two_samples(*batch)


def count_of(batch: Tree) -> int | None:
    """How many items the first list of samples has; None where there is none."""
    lists = (len(leaf) for leaf in tree_leaves(batch, is_leaf=is_samples) if is_samples(leaf))
    return next(lists, None)


def _marked(value: Tree, count: int) -> Tree:
    if isinstance(value, Mapping):
        return {key: _marked(part, count) for key, part in value.items()}
    if type(value) not in (tuple, list):
        return value
    tensors = _tensors(value)
    if len(value) == count and any(_length(tensor) != count for tensor in tensors):
        return Samples(value)
    return type(value)(_marked(part, count) for part in value)


def _is_two_samples(one: Tree, other: Tree) -> bool:
    """Whether two items are alike, and each of tensors of several kinds and lengths: no inputs with their targets."""
    if type(one) is not type(other) or not isinstance(one, (Mapping, tuple)):
        return False
    if isinstance(one, Mapping) and one.keys() != other.keys():
        return False
    tensors, others = _tensors(one), _tensors(other)
    kinds = [(tensor.dtype, tensor.dim()) for tensor in tensors]
    alike = kinds == [(tensor.dtype, tensor.dim()) for tensor in others] and len(set(kinds)) > 1
    return alike and len({_length(tensor) for tensor in (*tensors, *others)}) > 1


def _lengths_on_the_way(batch: Tree) -> list[int]:
    """Lengths of the lists on the way to the first tensor, the innermost first."""
    found: list[int] = []
    value = batch[0] if is_pair(batch) else batch
    while isinstance(value, (Mapping, tuple, list)) and value:
        if not isinstance(value, Mapping):
            found.insert(0, len(value))
        value = next((part for part in _parts(value) if _tensors(part)), None)
    return found


def _parts(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, Mapping) else value)


def _tensors(tree: Tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _length(tensor: Tensor) -> int | None:
    return tensor.shape[0] if tensor.dim() else None


def _holds(tree: Tree, wanted: Callable[[Any], bool]) -> bool:
    return any(wanted(leaf) for leaf in tree_leaves(tree, is_leaf=wanted))

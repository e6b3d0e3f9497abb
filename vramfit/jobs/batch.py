"""A job's batches: made, checked, sized and split.

A batch is a tensor, or tuples, lists and dicts of tensors, each with the n samples along its first dimension, or lists
of n samples of any size; numbers, booleans and None among them are the same for every sample. A pair is (inputs,
targets); any other batch is whole: the network takes what its `forward` names, and the loss gets all of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from vramfit.errors import UsageError
from vramfit.jobs.job import Batch, Job, Tree
from vramfit.jobs.listed_samples import Samples, count_of, find_samples, is_pair, is_samples, mark_samples
from vramfit.jobs.repeatable_randomness import repeatable_randomness
from vramfit.units import MIB

_CONSTANTS = (bool, int, float, type(None))
# Samples of a Dataset that are read for a batch of any size; a larger one repeats them.
_DISTINCT = 32
# A batch up to this size is made at another size, too, to see whether it follows what is asked.
_MADE_TWICE_BYTES = 16 * MIB
# The class that torch's losses, and the models of Hugging Face, leave out of the mean.
IGNORED = -100


def sample_batch(job: Job, samples: int) -> Batch:
    """A batch of `samples` as the job makes it, on the host.

    Raises:
        UsageError: what it makes is no batch, or not of so many samples; says where, and how to write it.

    """
    batch = mark_samples(_plain(_made(job, samples)), samples)
    _check(job, batch, samples)
    if not tensors_in(batch):
        raise UsageError(f"batch({samples}) of '{job.name}' holds no tensor; return (inputs, targets).")
    _check_another_size(job, batch, samples)
    return batch


def sample_shapes(job: Job) -> str:
    """Shapes and dtypes of a batch of two samples, such as `2x128 int64, 2 int64`.

    Sizes that are drawn at random are the same each time, and no random number of the run's is used up.

    Raises:
        UsageError: as `sample_batch` does.

    """
    with repeatable_randomness():
        leaves = tensors_in(sample_batch(job, 2))
    shapes = ("x".join(map(str, leaf.shape)) or "one" for leaf in leaves)
    return ", ".join(
        f"{shape} {str(leaf.dtype).removeprefix('torch.')}" for shape, leaf in zip(shapes, leaves, strict=True)
    )


def pair_of(batch: Batch) -> tuple[Tree, Tree]:
    """Inputs and targets; of a whole batch, all of it twice."""
    return (batch[0], batch[1]) if is_pair(batch) else (batch, batch)


def batch_size(batch: Tree) -> int:
    """Samples in a batch: items of a list of samples, else the first dimension of its first tensor."""
    batch = find_samples(batch)
    listed = count_of(batch)
    return int(tensors_in(batch)[0].shape[0]) if listed is None else listed


def part_of(batch: Tree, place: slice) -> Tree:
    """Some of the samples, as views."""

    def part(value: Any) -> Any:
        if is_samples(value):
            return Samples(value[place])
        return value[place] if isinstance(value, Tensor) else value

    return tree_map(part, find_samples(batch), is_leaf=is_samples)


def split(batch: Batch, micro_batch: int, take: Callable[[Batch, slice], Batch] = part_of) -> Iterator[Batch]:
    """A batch in parts of at most `micro_batch` samples, in order; views, not copies, where `take` makes such."""
    for start in range(0, batch_size(batch), micro_batch):
        yield take(batch, slice(start, start + micro_batch))


def weighed_parts(
    batch: Batch,
    micro_batch: int,
    weight: Callable[[Batch], float],
    take: Callable[[Batch, slice], Batch] = part_of,
) -> Iterator[tuple[Batch, float]]:
    """A batch in parts of at most `micro_batch` samples, each with its share of what the batch's mean loss is over.

    A part of no weight, such as one whose labels are all ignored, is left out: its own mean is 0/0, which is NaN times
    any share. Where the batch has no weight at all, all parts are taken, and weigh by their samples.

    Args:
        batch: of samples along the first dimension.
        micro_batch: the most samples of a part; a batch that has no more is yielded as it is.
        weight: what the mean loss of a part is over, such as its valid labels; at least 0.
        take: makes a part, as views by default.

    """
    samples = batch_size(batch)
    if samples <= micro_batch:
        yield batch, 1.0
        return
    parts = list(split(batch, micro_batch, take))
    weights = [float(weight(part)) for part in parts]
    total = sum(weights)
    for part, own in zip(parts, weights, strict=True):
        if own or not total:
            yield part, own / total if total else batch_size(part) / samples


def map_tensors(change: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same tree with every tensor changed, and what is constant as it is."""
    return tree_map(lambda value: change(value) if isinstance(value, Tensor) else value, tree)


def tensors_in(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def tree_bytes(tree: Tree) -> int:
    """Bytes of all tensors of a tree."""
    return sum(value.numel() * value.element_size() for value in tensors_in(tree))


def loss_terms(job: Job, batch: Batch) -> float:
    """How many terms the mean loss of a batch on the host is over; batches are weighed by it.

    `job.loss_terms` says it. Without one: the whole numbers among the targets that are not -100, the class that torch's
    losses and Hugging Face's models leave out of the mean; or the samples, where no target is a whole number, or each
    sample has its own, as in detection.
    """
    _, targets = pair_of(batch)
    if job.loss_terms is not None:
        return float(job.loss_terms(targets))
    if count_of(targets) is not None:
        return float(batch_size(batch))
    return valid_labels(tensors_in(targets), batch_size(batch))


def valid_labels(labels: Iterable[Tensor], samples: int) -> float:
    """The whole numbers among labels that are not -100, or the samples where no label is a whole number."""
    classes = [value for value in labels if value.dtype in (torch.int64, torch.int32)]
    known = sum(int((value != IGNORED).sum()) for value in classes)
    return float(known if classes else samples)


def _check(job: Job, batch: Batch, samples: int) -> None:
    for path, leaf in tree_flatten_with_path(batch)[0]:
        problem = _problem(leaf, path, samples, batch)
        if problem is not None:
            raise UsageError(f"batch({samples}) of '{job.name}' {problem}")


def _check_another_size(job: Job, batch: Batch, samples: int) -> None:
    """A fixed batch, or one with time first, may by chance be right at one size, and is wrong at the double."""
    if isinstance(job.batch, (DataLoader, Dataset)) or tree_bytes(batch) > _MADE_TWICE_BYTES:
        return
    try:
        double = mark_samples(_plain(_made(job, 2 * samples)), 2 * samples)
    except Exception:  # a job may take particular sizes alone, and says so in its own way
        return
    _check(job, double, 2 * samples)


def _made(job: Job, samples: int) -> Any:
    source: Any = job.batch
    if isinstance(source, DataLoader):
        if source.batch_size is None and source.batch_sampler is None:
            raise UsageError(
                f"The DataLoader of '{job.name}' yields what its Dataset batched (batch_size=None); "
                "give a function instead: batch=lambda n: ..., which makes n samples."
            )
        return source.collate_fn(_samples(source.dataset, samples))
    if isinstance(source, Dataset):
        return default_collate(_samples(source, samples))
    return source(samples)


def _samples(dataset: Dataset[Any], count: int) -> list[Any]:
    if isinstance(dataset, IterableDataset):
        read = list(islice(iter(dataset), min(count, _DISTINCT)))
    else:
        items: Any = dataset
        read = [items[index] for index in range(min(count, _DISTINCT, len(items)))]
    if not read:
        raise UsageError("The Dataset that batch names has no samples.")
    return [read[index % len(read)] for index in range(count)]


def _plain(value: Any) -> Any:
    """With mappings that torch does not know, such as a tokenizer's `BatchEncoding`, as dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_plain(part) for part in value)
    return value


def _problem(leaf: Any, path: Sequence[Any], samples: int, batch: Batch) -> str | None:
    where = _where(path, batch)
    if not isinstance(leaf, Tensor):
        return None if isinstance(leaf, _CONSTANTS) else f"gives {_mending(leaf, where)}"
    shape = "x".join(map(str, leaf.shape)) or "a single number"
    if (leaf.dim() and leaf.shape[0] == samples) or _is_in_sample(path, batch):
        return None
    if samples in leaf.shape:
        at = list(leaf.shape).index(samples)
        return (
            f"has its samples along dimension {at} of {where} ({shape}); put them first with "
            f".transpose(0, {at}), and back in the network's forward."
        )
    made = {int(value.shape[0]) if value.dim() else 0 for value in tensors_in(batch)}
    if len(made) == 1 and leaf.dim():
        return (
            f"makes {made.pop()} samples at {where} ({shape}), whatever is asked; let it make n of them, or write "
            "batch=loader with the DataLoader or the Dataset itself."
        )
    return (
        f"gives {where} ({shape}), whose first dimension is not that of the {samples} samples; repeat it for each "
        "sample, or keep what belongs to no sample in the network, as a buffer."
    )


def _is_in_sample(path: Sequence[Any], batch: Batch) -> bool:
    """Whether a leaf belongs to one of a list of samples, and may have any size."""
    value = batch
    for key in path:
        if is_samples(value):
            return True
        value = key.get(value)
    return False


def _mending(leaf: Any, where: str) -> str:
    kind = type(leaf).__name__
    if isinstance(leaf, DataLoader):
        return f"a DataLoader; write batch=loader, the DataLoader itself in place of a function ({where})."
    if type(leaf).__module__ == "numpy":
        return f"a numpy array at {where}; give a tensor: torch.from_numpy(array)."
    if isinstance(leaf, (str, bytes)):
        return f"text at {where}; leave out of the batch what is no tensor."
    return f"a {kind} at {where}; give tensors, or tuples, lists and dicts of them."


def _where(path: Sequence[Any], batch: Batch) -> str:
    if not path:
        return "the batch"
    if not is_pair(batch):
        return f"batch{keystr(tuple(path))}"
    name = ("inputs", "targets")[path[0].idx]
    return f"{name}{keystr(tuple(path[1:]))}"

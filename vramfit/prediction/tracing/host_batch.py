"""A job's batch for a trace: real where it is small, and shapes alone where it would fill the host's memory."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from vramfit.jobs.batch import map_tensors, sample_batch, tree_bytes
from vramfit.jobs.job import Batch, Job, Tree
from vramfit.jobs.listed_samples import Samples, is_samples
from vramfit.units import MIB

# A batch up to this size is made as the job makes it: values in it may decide what a step does.
_REAL_LIMIT_BYTES = 256 * MIB
_SMALL = (2, 4)


def traceable_batch(job: Job, samples: int) -> Batch:
    """A batch of `samples`; a large one is of meta tensors, whose shapes follow from those of two small batches.

    Raises:
        UsageError: what the job makes is no batch, or not of so many samples.

    """
    small = _made(job, _SMALL[0])
    if small is None or tree_bytes(small) // _SMALL[0] * samples <= _REAL_LIMIT_BYTES:
        return sample_batch(job, samples)
    shapes = _extrapolated(small, _made(job, _SMALL[1]), samples)
    return sample_batch(job, samples) if shapes is None else shapes


def _made(job: Job, samples: int) -> Batch | None:
    """A small batch; None where the job makes none of that size, but may of another."""
    try:
        return sample_batch(job, samples)
    except Exception:
        return None


def _extrapolated(first: Tree, second: Tree, samples: int) -> Tree | None:
    """The larger tree with each length of its tensors on the line through both; None where their kinds differ."""
    ones, spec = tree_flatten(first, is_leaf=is_samples)
    others, other_spec = tree_flatten(second, is_leaf=is_samples)
    if spec != other_spec or any(_kind(one) != _kind(other) for one, other in zip(ones, others, strict=True)):
        return None
    leaves = [_longer(one, other, samples) for one, other in zip(ones, others, strict=True)]
    return tree_unflatten(leaves, spec)


def _kind(leaf: object) -> object:
    if is_samples(leaf):
        return Samples
    return (leaf.dtype, leaf.dim()) if isinstance(leaf, Tensor) else leaf


def _longer(one: object, other: object, samples: int) -> object:
    if isinstance(other, Samples):
        return Samples(map_tensors(_empty, other[index % len(other)]) for index in range(samples))
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return one
    low, high = _SMALL
    lengths = [a + (b - a) * (samples - low) // (high - low) for a, b in zip(one.shape, other.shape, strict=True)]
    return torch.empty(lengths, dtype=one.dtype, device="meta")


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")

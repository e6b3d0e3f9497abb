"""The axes along which samples vary in size: tokens, points, frames, or height and width.

A job has an axis where its `batch` takes a keyword of that name beside the number of samples:

    def batch(samples, tokens=512):
        return torch.randint(50257, (samples, tokens)), torch.randint(50257, (samples, tokens))
"""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset

from vramfit.errors import DataError, UsageError
from vramfit.jobs.job import Job
from vramfit.plan.lengths import Length, name_of

# Axes by the keyword of `batch`, each with how many numbers its lengths have.
AXES: Mapping[str, int] = {"tokens": 1, "points": 1, "frames": 1, "image_size": 2}
# What a padded sequence is called where a sample is a dict.
_SEQUENCES = ("input_ids", "input_values", "input_features", "pixel_values")


def axis_named(text: str) -> str:
    """The axis of a name; hyphens count as underscores.

    Raises:
        UsageError: there is none; the message lists them.

    """
    name = text.replace("-", "_")
    if name not in AXES:
        known = ", ".join(one.replace("_", "-") for one in AXES)
        raise UsageError(f"'{text}' is no axis; use one of {known}, or batch.")
    return name


def at_length(job: Job, axis: str, length: Length) -> Job:
    """The job with every sample of one length: (tokens,), or (height, width) for `image_size`.

    Raises:
        UsageError: its `batch` has no such axis, or the length has another number of numbers.

    """
    if len(length) != AXES[axis]:
        wanted = "height and width, such as 480x640" if AXES[axis] == 2 else "one number"
        raise UsageError(f"{name_of(length)} is no length along {axis.replace('_', '-')}, which is {wanted}.")
    if axis not in _keywords(job.batch):
        raise UsageError(
            f"batch of '{job.name}' takes no '{axis}', so its samples have one length: write "
            f"def batch(samples, {axis}={'(480, 640)' if AXES[axis] == 2 else 512}): ... and make them that long."
        )
    function: Any = job.batch
    sized = replace(job, batch=partial(function, **{axis: length if AXES[axis] == 2 else length[0]}))
    return replace(sized, image_size=(length[0], length[1])) if axis == "image_size" else sized


def lengths_of(dataset: "Dataset[Any]", axis: str) -> list[Length]:
    """The length of each sample of a Dataset, which is read once: (tokens,), or (height, width) of an image.

    The length is that of `input_ids` or another sequence by its usual name where a sample is a dict, else of the
    sample's first tensor, array or list; an image's last two dimensions are its height and width.

    Raises:
        DataError: a sample that holds nothing with a length.

    """
    items: Any = dataset
    return [_length_of(items[index], axis, index) for index in range(len(items))]


def _length_of(sample: Any, axis: str, index: int) -> Length:
    whole = sample
    if isinstance(sample, Mapping):
        sample = next((sample[name] for name in _SEQUENCES if name in sample), list(sample.values()))
    numbers = AXES[axis]
    for value in tree_leaves(sample, is_leaf=_is_sequence):
        shape = (len(value),) if _is_sequence(value) else tuple(getattr(value, "shape", ()))
        if len(shape) >= numbers:
            return tuple(map(int, shape[-2:] if numbers == 2 else shape[:1]))
    raise DataError(
        f"sample {index} of the data set is a {type(whole).__name__} without a length; give lengths as a list."
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], (int, float))


def _keywords(batch: Any) -> set[str]:
    """The names that a batch function takes beside its first argument, the number of samples."""
    try:
        _, *parameters = inspect.signature(batch).parameters.values()
    except (TypeError, ValueError):  # a DataLoader or a Dataset, or a function that takes nothing
        return set()
    return {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}

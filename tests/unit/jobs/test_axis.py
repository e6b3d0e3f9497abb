"""Axes: a job at one length, and the lengths of a data set's samples."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from vramfit.errors import DataError, UsageError
from vramfit.jobs.axis import at_length, axis_named, lengths_of
from vramfit.jobs.batch import sample_batch
from vramfit.jobs.job import Job


def job_of(batch):
    return Job(model=nn.Identity, batch=batch, loss=nn.functional.mse_loss, optimizer=torch.optim.SGD)


def tokens(samples, tokens=16):
    return torch.zeros(samples, tokens), torch.zeros(samples, tokens)


def images(samples, *, image_size=(8, 8)):
    return torch.zeros(samples, 3, *image_size), torch.zeros(samples)


def test_a_keyword_of_batch_is_an_axis():
    sized = at_length(at_length(job_of(tokens), "tokens", (5,)), "tokens", (7,))
    assert sample_batch(sized, 3)[0].shape == (3, 7)


def test_height_and_width_are_one_axis_and_the_jobs_image_size():
    sized = at_length(job_of(images), "image_size", (32, 64))
    assert sample_batch(sized, 2)[0].shape == (2, 3, 32, 64)
    assert sized.image_size == (32, 64)


@pytest.mark.parametrize("batch", [torch.zeros, lambda tokens: (tokens, tokens), TensorDataset()])
def test_a_job_without_the_axis_is_told_how_to_have_it(batch):
    with pytest.raises(UsageError, match=r"takes no 'tokens'.*def batch\(samples, tokens=512\)"):
        at_length(job_of(batch), "tokens", (5,))


def test_an_axis_that_is_none_is_refused_with_those_there_are():
    assert axis_named("image-size") == "image_size"
    with pytest.raises(
        UsageError, match=r"'width' is no axis; use one of tokens, points, frames, image-size, or batch"
    ):
        axis_named("width")
    with pytest.raises(UsageError, match="5x6 is no length along tokens"):
        at_length(job_of(tokens), "tokens", (5, 6))


@pytest.mark.parametrize(
    ("samples", "axis", "lengths"),
    [
        ([{"input_ids": [1, 2, 3], "label": 1}, {"input_ids": [1], "label": 0}], "tokens", [(3,), (1,)]),
        ([(torch.zeros(5, 3), 1), (torch.zeros(9, 3), 0)], "points", [(5,), (9,)]),
        ([([1, 2], 0)], "tokens", [(2,)]),
        ([np.zeros(4)], "frames", [(4,)]),
        ([(torch.zeros(3, 20, 30), {"boxes": torch.zeros(2, 4)})], "image_size", [(20, 30)]),
    ],
)
def test_lengths_of_a_data_set(samples, axis, lengths):
    assert lengths_of(samples, axis) == lengths


def test_a_sample_without_a_length_is_named():
    with pytest.raises(DataError, match=r"sample 1 .* a str without a length"):
        lengths_of([torch.zeros(3), "text"], "tokens")

"""Gradients that torch's own formulas write into zeros, which on a card is done in place."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

SHAPE, FLOAT = (8, 16), 4
WHOLE = 8 * 16 * FLOAT  # bytes of the input and of its gradient


def blocks_of_the_gradient(function):
    """What the backward pass of a function allocates that is as large as its input, by operation."""
    trace = Trace(1)
    recorder = Recorder(trace)
    with cuda_everywhere(), recorder:
        value = recorder.move(torch.empty(SHAPE), "input").requires_grad_()
        out = function(value)
        gradient = torch.empty_like(out)
        start = len(trace.storages)
        torch.autograd.grad(out, value, gradient)
        recorder.mark("end")
    return [storage.op for storage in trace.storages[start:] if storage.size_bytes == WHOLE]


def places(value, *shape):
    return value.new_zeros(shape, dtype=torch.long)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.gather(1, places(x, 8, 2)),
        lambda x: x.index_select(1, places(x, 2)),
        lambda x: x[places(x, 3)],
        lambda x: x.take(places(x, 3)),
        lambda x: x.max(1).values,
        lambda x: x.median(1).values,
        lambda x: x.kthvalue(2, 1).values,
        lambda x: x.topk(2, 1).values,
        lambda x: x.sort(1).values[:, :2],
        lambda x: x.masked_select(x > 0),
    ],
)
def test_the_gradient_of_what_was_chosen_is_one_tensor(function):
    made = blocks_of_the_gradient(function)
    assert [op for op in made if op != "slice_backward"] in (["new_zeros"], ["zeros"], ["zeros_like"])


def added(value):
    """The sum is a tensor beside the zeros, as it is written."""
    return value.new_zeros(SHAPE).scatter_add(1, places(value, *SHAPE), value).sigmoid()


def test_what_the_step_itself_adds_out_of_place_stays_so_where_it_is_computed_again():
    made = blocks_of_the_gradient(lambda x: checkpoint(added, x, use_reentrant=False))
    assert made.count("new_zeros") == made.count("scatter_add") == 1


class Gather(torch.autograd.Function):
    """A function of a job's own, whose backward pass adds out of place."""

    @staticmethod
    def forward(ctx, value):
        return value * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient.new_zeros(SHAPE).scatter_add(1, places(gradient, *SHAPE), gradient)


def test_a_function_that_is_named_as_one_of_torch_adds_as_it_is_written():
    assert blocks_of_the_gradient(Gather.apply).count("scatter_add") == 1

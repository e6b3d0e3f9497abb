"""What losses hold while they run, and what their gradients are computed in."""

import pytest
import torch
from torch.nn import functional as F

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

SHAPE = (8, 16)
ONE = 4  # bytes of a number
WHOLE = 8 * 16 * ONE


def traced(loss):
    """The blocks of a loss of new tensors, and of its backward pass, by operation."""
    trace = Trace(1)
    recorder = Recorder(trace)
    with cuda_everywhere(), recorder:
        outputs = recorder.move(torch.empty(SHAPE), "input").requires_grad_()
        targets = recorder.move(torch.empty(SHAPE), "input")
        value = loss(outputs, targets)
        gradient = torch.empty_like(value)
        start = len(trace.storages)
        torch.autograd.grad(value, outputs, gradient)
        recorder.mark("end")
    return trace.storages[:start], trace.storages[start:]


def made(storages, op):
    return [storage.size_bytes for storage in storages if storage.op == op]


@pytest.mark.parametrize(
    ("op", "loss", "beside"),
    [
        ("mse_loss", F.mse_loss, []),
        ("smooth_l1_loss", F.smooth_l1_loss, []),
        ("huber_loss", F.huber_loss, []),
        ("binary_cross_entropy", F.binary_cross_entropy, []),
        ("binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, [WHOLE]),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_is_computed_element_by_element_before_it_is_averaged(op, loss, beside, reduction):
    forward, _ = traced(lambda outputs, targets: loss(outputs, targets, reduction=reduction))
    assert made(forward, op) == ([WHOLE] if reduction == "none" else [ONE, WHOLE]) + beside


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_the_elements_of_a_loss_are_as_many_as_it_is_broadcast_to():
    forward, _ = traced(lambda outputs, targets: F.mse_loss(outputs, targets[:1]))
    assert made(forward, "mse_loss") == [ONE, WHOLE]


def test_logsumexp_holds_the_exponentials():
    forward, _ = traced(lambda outputs, _: outputs.logsumexp(1))
    assert made(forward, "logsumexp") == [8 * ONE, WHOLE]


@pytest.mark.parametrize(
    ("weights", "blocks"),
    [
        ({}, ["sigmoid"]),
        ({"pos_weight": torch.ones(16)}, ["mul.Tensor", "add.Scalar", "sigmoid"]),
        ({"pos_weight": torch.ones(SHAPE)}, ["mul.Tensor", "add.Scalar", "sigmoid"]),  # is not written over
    ],
)
def test_the_gradient_of_a_binary_cross_entropy_is_computed_in_place(weights, blocks):
    def loss(outputs, targets):
        given = {name: outputs.new_ones(weight.shape) for name, weight in weights.items()}
        return F.binary_cross_entropy_with_logits(outputs, targets, **given)

    _, backward = traced(loss)
    assert [storage.op for storage in backward if storage.size_bytes == WHOLE] == blocks

"""What kernels of one memory order copy while they run, and how their results lie."""

import pytest
import torch
from made_storages import made
from torch.nn import functional as F

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

NCHW, NHWC = torch.contiguous_format, torch.channels_last
SHAPE = (2, 4, 6, 6)
IMAGE = 2 * 4 * 6 * 6 * 4  # bytes
PADDED = 2 * 4 * 8 * 8 * 4
POOLED = 2 * 4 * 3 * 3 * 4


def traced(function, order, gradient=None):
    """The trace of a function of an image of some order, its result, and the image's gradient where one is given."""
    trace = Trace(1)
    recorder = Recorder(trace)
    with cuda_everywhere(), recorder:
        image = recorder.move(torch.empty(SHAPE).to(memory_format=order), "input").requires_grad_(gradient is not None)
        out = function(image)
        found = None
        if gradient is not None:
            (found,) = torch.autograd.grad(out, image, torch.empty_like(out, memory_format=gradient))
        recorder.mark("end")
    return trace, out, found


@pytest.mark.parametrize(
    ("op", "function", "nchw", "nhwc"),
    [
        ("roll", lambda x: x.roll(1, 2), [IMAGE], 2 * [IMAGE]),
        ("roll", lambda x: x.roll((1, 1), (2, 3)), 2 * [IMAGE], 2 * [IMAGE]),
        ("roll", lambda x: x.roll((1, 1, 1), (1, 2, 3)), 3 * [IMAGE], 3 * [IMAGE]),
        ("roll", lambda x: x.roll(1), [IMAGE], 2 * [IMAGE]),
        ("reflection_pad2d", lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), [PADDED], [PADDED, IMAGE]),
        ("replication_pad2d", lambda x: F.pad(x, (1, 1, 1, 1), "replicate"), [PADDED], [PADDED]),
        ("constant_pad_nd", lambda x: F.pad(x, (1, 1, 1, 1)), [PADDED], [PADDED]),
        ("cumsum", lambda x: x.cumsum(1), [IMAGE], 2 * [IMAGE]),
        ("im2col", lambda x: F.unfold(x, 1), [IMAGE], 2 * [IMAGE]),
        ("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), [IMAGE], [IMAGE]),
        ("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), [IMAGE], [IMAGE]),
        ("flip", lambda x: x.flip(3), [IMAGE], [IMAGE]),
        (
            "adaptive_max_pool2d",
            lambda x: F.adaptive_max_pool2d(x, 3),
            [POOLED, 2 * POOLED],
            [POOLED, 2 * POOLED, IMAGE, POOLED, 2 * POOLED],
        ),
        ("_adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, 3), [POOLED], [POOLED]),
        ("max_pool2d_with_indices", lambda x: F.max_pool2d(x, 2), [POOLED, 2 * POOLED], [POOLED, 2 * POOLED]),
    ],
)
def test_a_kernel_of_nchw_order_alone_copies_an_nhwc_image(op, function, nchw, nhwc):
    for order, sizes in ((NCHW, nchw), (NHWC, nhwc)):
        trace, _, _ = traced(function, order)
        assert made(trace, op) == sizes


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("max_pool2d_with_indices_backward", lambda x: F.max_pool2d(x, 2)),
        ("avg_pool2d_backward", lambda x: F.avg_pool2d(x, 2)),
        ("_adaptive_avg_pool2d_backward", lambda x: F.adaptive_avg_pool2d(x, 3)),
    ],
)
@pytest.mark.parametrize("order", [NCHW, NHWC])
@pytest.mark.parametrize("gradient", [NCHW, NHWC])
def test_pooling_copies_a_gradient_that_does_not_lie_as_the_image(op, function, order, gradient):
    trace, _, grad = traced(function, order, gradient)
    assert made(trace, op) == [IMAGE] + [POOLED] * (order != gradient)
    assert grad.is_contiguous(memory_format=order)


def test_reflection_copies_an_nhwc_gradient():
    for gradient in (NCHW, NHWC):
        trace, _, _ = traced(lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), NHWC, gradient)
        assert made(trace, "reflection_pad2d_backward") == [IMAGE] + [PADDED] * (gradient is NHWC)


@pytest.mark.parametrize(
    ("function", "order"),
    [
        (lambda x: x.roll((1, 1), (2, 3)), NCHW),
        (lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), NCHW),
        (lambda x: F.pad(x, (1, 1, 1, 1), "replicate"), NCHW),
        (lambda x: F.pad(x, (1, 1, 1, 1)), NHWC),
        (lambda x: F.pixel_shuffle(x, 2), NCHW),
        (lambda x: F.pixel_unshuffle(x, 2), NCHW),
        (lambda x: F.channel_shuffle(x, 2), NCHW),
        (lambda x: F.grid_sample(x, x.new_zeros(2, 6, 6, 2), align_corners=False), NCHW),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), NHWC),
        (lambda x: F.adaptive_max_pool2d(x, 3), NHWC),
        (lambda x: x.cumsum(1), NCHW),
        (lambda x: x.flip(3), NHWC),
        (lambda x: x.repeat(1, 2, 1, 1), NCHW),
        (lambda x: x.index_select(0, x.new_zeros(2, dtype=torch.long)), NCHW),
        (lambda x: torch.cat([x, x], 1), NHWC),
        (lambda x: torch.cat([x, x.contiguous()], 1), NCHW),
    ],
)
def test_results_of_an_nhwc_image_lie_as_a_card_lays_them(function, order):
    _, out, _ = traced(function, NHWC)
    assert out.is_contiguous(memory_format=order)


def test_the_gradient_of_a_gated_unit_is_contiguous():
    assert traced(lambda x: F.glu(x, 1), NHWC, NHWC)[2].is_contiguous()

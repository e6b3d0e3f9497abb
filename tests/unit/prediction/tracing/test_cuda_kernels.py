"""Kernels that return or keep other bytes on a card than on a CPU; those that are not known are said."""

import pytest
import torch
from made_storages import made
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.batch_norm import backward
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

N, C = 8, 64
FLOAT = 4


def traced(function, *shapes, dtype=torch.float32, backward=True):
    """A trace of a function of new tensors, and its backward pass."""
    trace = Trace(1)
    recorder = Recorder(trace)
    with cuda_everywhere(), recorder:
        given = [recorder.move(torch.empty(shape, dtype=dtype), "input") for shape in shapes]
        out = function(*(tensor.requires_grad_() if backward else tensor for tensor in given))
        recorder.mark("backward")
        if backward:
            out.backward(torch.empty_like(out))
        recorder.mark("end")
    return trace


def test_log_sigmoid_keeps_no_exponential() -> None:
    assert made(traced(F.logsigmoid, (N, C)), "log_sigmoid_forward") == [N * C * FLOAT, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_one_kernel_that_keeps_a_number_a_row(dtype) -> None:
    trace = traced(lambda x, weight: F.rms_norm(x, (C,), weight), (N, C), (C,), dtype=dtype)
    size = dtype.itemsize
    assert made(trace, "_fused_rms_norm") == [N * C * size, N * FLOAT]
    assert made(trace, "_fused_rms_norm_backward") == [N * C * size, C * size]


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_rms_norm_of_two_dtypes_is_composed_as_on_a_card() -> None:
    trace = traced(lambda x: F.rms_norm(x, (C,), torch.ones(C, dtype=torch.float32)), (N, C), dtype=torch.bfloat16)
    assert "_fused_rms_norm" not in {operation.name for operation in trace.operations}


def test_ctc_takes_in_its_backward_pass_what_it_kept() -> None:
    """Sums over paths: frames x samples x (2 x the longest target + 1)."""
    frames, longest = 20, 5

    def loss(logits):
        lengths = (frames,) * N, (longest,) * N
        return F.ctc_loss(logits.log_softmax(-1), torch.ones(N, longest, dtype=torch.long), *lengths, reduction="sum")

    trace = traced(loss, (frames, N, C))
    paths = N * frames * (2 * longest + 1) * FLOAT
    assert paths in made(trace, "_ctc_loss")
    assert paths in made(trace, "_ctc_loss_backward")


def test_what_is_not_known_of_a_kernel_is_said() -> None:
    trace = traced(lambda x: torch.geqrf(x)[0], (N, N), backward=False)
    assert any("geqrf takes on a card what it takes on a CPU" in said for said in trace.assumptions)
    assert traced(torch.relu, (N, C)).assumptions == []


@torch.library.custom_op("vramfit_test::twice", mutates_args=())
def twice(value: Tensor) -> Tensor:
    """A user's own kernel."""
    return value * 2


@twice.register_fake
def _(value: Tensor) -> Tensor:
    return torch.empty_like(value)


def test_a_kernel_of_ones_own_is_taken_to_need_nothing_beside_its_results_and_that_is_said() -> None:
    trace = traced(twice, (N, C), backward=False)
    assert made(trace, "vramfit_test::twice") == [N * C * FLOAT]
    assert any("vramfit_test::twice takes no memory beside its results" in said for said in trace.assumptions)


@pytest.mark.parametrize(
    ("dtype", "weight", "copies"),
    [
        (torch.float32, torch.float32, 3),
        (torch.float16, torch.float32, 3),
        (torch.float16, torch.float16, 0),
        (torch.bfloat16, torch.float32, 0),
    ],
)
def test_cudnn_normalizes_a_copy_of_what_is_not_in_its_memory_order(dtype, weight, copies) -> None:
    """Of the input and of the gradient, and its result is to be turned back; CUDA's own takes them as they lie."""

    def normalized(sequences):
        norm = nn.BatchNorm1d(C).to(weight)
        return norm(sequences.transpose(1, 2)).transpose(1, 2).contiguous()

    trace = traced(normalized, (N, 5, C), dtype=dtype)
    size = N * 5 * C * dtype.itemsize
    copied = [one.size_bytes for one in trace.storages if one.op == "clone" and one.size_bytes == size]
    taken = made(trace, "native_batch_norm_backward").count(size) - 1
    assert len(copied) + taken == copies


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_cudnn_normalizes_images_in_their_own_memory_order(order) -> None:
    trace = traced(lambda images: nn.BatchNorm2d(C)(images.to(memory_format=order)).relu(), (N, C, 4, 4))
    assert not made(trace, "clone")
    size = N * C * 16 * FLOAT
    assert made(trace, "native_batch_norm").count(size) == 1
    assert made(trace, "native_batch_norm_backward").count(size) == 1


@pytest.mark.parametrize(("images", "weights", "copies"), [(False, False, 0), (True, True, 0), (True, False, 1)])
def test_a_gradient_that_cudnn_orders_as_the_images_is_copied_into_the_order_of_its_weight(images, weights, copies):
    """cuDNN makes the gradient of a weight in NHWC order where images are; `weight.grad` lies as the weight does."""
    order = {True: torch.channels_last, False: torch.contiguous_format}

    def convolved(values, weight):
        values = values.to(memory_format=order[images])
        return F.conv2d(values, nn.Parameter(weight.to(memory_format=order[weights]).detach()))

    trace = traced(convolved, (N, C, 8, 8), (16, C, 3, 3))
    size = 16 * C * 9 * FLOAT
    assert made(trace, "convolution_backward").count(size) == 1 + copies  # of the weight, in the order of the images
    assert made(trace, "new_empty_strided").count(size) == copies


@pytest.mark.parametrize(("order", "copies"), [(torch.contiguous_format, 0), (torch.channels_last, 1)])
def test_groups_are_normalized_in_nchw_order_alone(order, copies) -> None:
    """An NHWC input is copied, and an NHWC gradient."""

    def normalized(images):
        result = nn.GroupNorm(4, C)(images.to(memory_format=order))
        result.register_hook(lambda gradient: gradient.contiguous(memory_format=order))
        return result

    trace, size = traced(normalized, (N, C, 4, 4)), N * C * 16 * FLOAT
    assert made(trace, "clone").count(size) == 2 * copies  # the input's, and that of this test's hook
    assert made(trace, "native_group_norm_backward").count(size) == 1 + copies


def test_a_convolution_copies_what_is_not_in_its_order_while_it_runs() -> None:
    """An NCHW image beside an NHWC weight: forward and backward; and the gradient of the NHWC result."""

    def convolved(images, weight):
        return F.conv2d(images, weight.to(memory_format=torch.channels_last), padding=1).contiguous()

    trace = traced(convolved, (N, C, 8, 8), (C, C, 3, 3))
    size = N * C * 64 * FLOAT
    assert made(trace, "convolution").count(size) == 2
    assert made(trace, "convolution_backward").count(size) == 3  # the image's gradient and two copies


@pytest.mark.parametrize("gradient", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_normalized_image_lies_as_the_image_does(gradient) -> None:
    value = torch.empty(2, 16, 4, 4, device="meta").to(memory_format=torch.channels_last)
    of_channels = [torch.empty(16, device="meta")] * 5
    given = torch.empty(2, 16, 4, 4, device="meta").to(memory_format=gradient)
    found = backward(given, value, *of_channels, True, 1e-5, [True] * 3)[0]
    assert found is not None
    assert found.stride() == value.stride()


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("_softmax", lambda value: value.softmax(1)),
        ("_log_softmax", lambda value: value.log_softmax(1)),
        ("native_layer_norm", lambda value: F.layer_norm(value, (4, 4))),
    ],
)
@pytest.mark.parametrize(("order", "copies"), [(torch.contiguous_format, 0), (torch.channels_last, 1)])
def test_a_kernel_that_knows_nchw_order_alone_copies_what_is_nhwc_while_it_runs(op, function, order, copies) -> None:
    trace = traced(lambda images: function(images.to(memory_format=order)), (N, C, 4, 4), backward=False)
    assert made(trace, op).count(N * C * 16 * FLOAT) == 1 + copies

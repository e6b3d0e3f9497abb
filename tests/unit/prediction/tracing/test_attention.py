"""Scaled dot product attention: which kernel a card runs, what it keeps and what it takes while it runs.

The choices are those of torch's sdp_utils.cpp; no card is needed to read them.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

T4, A100, RTX3090, H100, RTX5090 = (7, 5), (8, 0), (8, 6), (9, 0), (12, 0)
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
FLASH, EFFICIENT, CUDNN = (f"_scaled_dot_product_{name}_attention" for name in ("flash", "efficient", "cudnn"))
B, N, L, E = 2, 8, 512, 64


def attend(capability, dtype, *, kept=N, width=E, mask=None, grad=True, keys=L, **options):
    """A trace of attention and its backward pass; queries are [B, L, N, E] seen as [B, N, L, E]."""
    trace = Trace(B)
    recorder = Recorder(trace, capability)
    with cuda_everywhere(capability), recorder:
        shapes = (B, L, N, width), (B, keys, kept, width), (B, keys, kept, width)
        parts = [recorder.move(torch.empty(shape, dtype=dtype), "input").requires_grad_(grad) for shape in shapes]
        if mask is not None:
            options["attn_mask"] = recorder.move(mask, "input")
        recorder.mark("forward")
        out = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts), **options)
        recorder.mark("backward")
        if grad:
            out.backward(torch.empty_like(out))
        recorder.mark("end")
    return trace


def kernels(trace):
    return [operation.name for operation in trace.operations if "attention" in operation.name]


def sizes(trace, part, op):
    """Bytes that an operation allocates in a part of the trace, results first."""
    start, stop = (trace.marks[name] for name in (part, {"forward": "backward", "backward": "end"}[part]))
    made = [trace.storages[event] for event in trace.events[start:stop] if event >= 0]
    return [storage.size_bytes for storage in made if storage.op == op]


@pytest.mark.parametrize(
    ("capability", "dtype", "options", "kernel"),
    [
        (RTX3090, BF16, {}, FLASH),
        (RTX5090, FP16, {}, FLASH),
        (H100, BF16, {}, CUDNN),
        (H100, BF16, {"width": 256}, FLASH),
        (H100, BF16, {"dropout_p": 0.125}, CUDNN),
        (H100, BF16, {"dropout_p": 0.1}, FLASH),
        (H100, FP32, {}, EFFICIENT),
        (RTX3090, FP32, {}, EFFICIENT),
        (RTX3090, FP32, {"width": 22}, None),
        (T4, FP16, {}, EFFICIENT),
        (T4, FP32, {"width": 22}, EFFICIENT),
        (T4, BF16, {}, None),
        (RTX3090, BF16, {"width": 20}, FLASH),
        (RTX3090, BF16, {"width": 256}, FLASH),
        (RTX3090, BF16, {"width": 256, "dropout_p": 0.1}, EFFICIENT),
        (A100, BF16, {"width": 256, "dropout_p": 0.1}, FLASH),
        (RTX3090, BF16, {"width": 256, "dropout_p": 0.1, "grad": False}, FLASH),
        (RTX3090, BF16, {"width": 264}, EFFICIENT),
        (RTX3090, BF16, {"mask": torch.ones(L, L, dtype=torch.bool)}, EFFICIENT),
        (H100, BF16, {"mask": torch.ones(L, L, dtype=torch.bool)}, CUDNN),
        (RTX3090, BF16, {"is_causal": True}, FLASH),
        (RTX3090, BF16, {"is_causal": True, "keys": 256}, EFFICIENT),
        (RTX3090, BF16, {"kept": 2, "enable_gqa": True}, FLASH),
        (H100, BF16, {"kept": 2, "enable_gqa": True}, CUDNN),
        (RTX3090, torch.float64, {}, None),
    ],
)
def test_the_kernel_that_a_card_runs(capability, dtype, options, kernel) -> None:
    found = kernels(attend(capability, dtype, **options))
    backward = options.get("grad", True)
    expected = [] if kernel is None else [kernel, f"{kernel}_backward"] if backward else [kernel]
    assert found == expected


def test_kernels_that_are_switched_off_are_not_chosen() -> None:
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        assert kernels(attend(H100, BF16))[0] == EFFICIENT
    with sdpa_kernel(SDPBackend.MATH):
        assert kernels(attend(RTX3090, BF16)) == []


@pytest.mark.parametrize(("version", "kernel"), [(91000, FLASH), (91501, CUDNN), (None, CUDNN)])
def test_an_old_cudnn_stands_behind_flash_attention(monkeypatch, version, kernel) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    assert kernels(attend(H100, BF16))[0] == kernel


@pytest.mark.parametrize("kept", [8, 2])
def test_flash_keeps_a_row_of_sums_and_never_multiplies_heads(kept) -> None:
    trace = attend(RTX3090, BF16, kept=kept, enable_gqa=True)
    out, sums = sizes(trace, "forward", FLASH)[:2]
    assert (out, sums) == (B * N * L * E * 2, B * N * L * 4)
    assert sum(sizes(trace, "forward", FLASH)[2:]) <= 64  # the state of the random numbers


def test_flash_sums_the_gradient_of_the_queries_in_float32() -> None:
    """`mha_bwd`: rows rounded up to 128, width to 32."""
    op = f"{FLASH}_backward"
    assert sizes(attend(RTX3090, BF16), "backward", op) == [B * N * L * E * 2] * 3 + [B * N * L * 4, B * N * L * E * 4]
    grouped = sizes(attend(RTX3090, BF16, kept=2, enable_gqa=True), "backward", op)
    assert grouped[1:3] == [B * 2 * L * E * 2] * 2  # gradients of as many heads as there are
    assert grouped[5:] == [B * N * L * E * 2] * 2  # one for every head of the queries before they are summed
    padded = sizes(attend(RTX3090, FP16, width=20), "backward", op)
    assert padded[-1] == B * N * L * 32 * 4


def test_efficient_keeps_sums_in_whole_warps_and_only_for_a_backward_pass() -> None:
    assert sizes(attend(RTX3090, FP32, grad=False), "forward", EFFICIENT)[0] == B * N * L * E * 4
    assert sum(sizes(attend(RTX3090, FP32, grad=False), "forward", EFFICIENT)[1:]) <= 64
    assert sizes(attend(RTX3090, FP32), "forward", EFFICIENT)[:2] == [B * N * L * E * 4, B * N * L * 4]


def test_efficient_backward_in_half_precision_sums_queries_and_in_float32_does_not() -> None:
    op = f"{EFFICIENT}_backward"
    whole, half = B * N * L * E * 4, B * N * L * E * 2
    mask = torch.zeros(L, L, dtype=BF16)
    assert sizes(attend(RTX3090, BF16, mask=mask), "backward", op) == [half] * 3 + [B * N * L * 4, whole]
    assert sizes(attend(RTX3090, FP32), "backward", op) == [whole] * 3 + [B * N * L * 4, whole]


def test_a_gradient_in_another_order_is_copied() -> None:
    """The kernels read [B, L, N, E]; a gradient that is contiguous as [B, N, L, E] is copied first."""
    trace = Trace(B)
    recorder = Recorder(trace, RTX3090)
    with cuda_everywhere(RTX3090), recorder:
        parts = [recorder.move(torch.empty(B, L, N, E, dtype=BF16), "input").requires_grad_() for _ in range(3)]
        out = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))
        gradient = torch.empty(B, N, L, E, dtype=BF16)
        start = len(trace.storages)
        out.backward(gradient)
    assert [storage.size_bytes for storage in trace.storages[start:]][3] == B * N * L * E * 2


def test_what_a_kernel_takes_is_given_back_when_it_is_done() -> None:
    trace = attend(RTX3090, BF16)
    held = trace.allocated_bytes()[trace.marks["end"] - 1]
    # three inputs, their gradients, the result, its gradient and what the kernel kept
    assert held <= 8 * B * N * L * E * 2 + B * N * L * 4 + 64

"""Partial sums that CUDA's reductions hold while they run."""

import pytest
import torch

from vramfit.cards import find_card
from vramfit.prediction.reductions import staging_bytes, staging_workspaces
from vramfit.prediction.trace_records import Reduction, Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.units import MIB

ADA = find_card("rtx4090")  # 128 multiprocessors of 1536 threads


def test_a_recorded_sum() -> None:
    """The gradient of a norm's weight over 4 x 512 tokens of 1024, in a snapshot of a card: 16 MiB and 32 bytes."""
    assert staging_bytes(Reduction(2048, 1024), ADA) == 16 * MIB + 32


@pytest.mark.parametrize(("rows", "columns"), [(512, 1024), (1020, 1024), (1 << 20, 1 << 20), (3, 3), (1, 4096)])
def test_no_blocks_share_an_output_where_there_is_little_to_sum_or_enough_to_keep(rows, columns) -> None:
    assert staging_bytes(Reduction(rows, columns), ADA) == 0


def test_partial_sums_fill_the_card_and_no_more() -> None:
    """128 multiprocessors x 12 blocks of 128 threads, each with four columns a thread in float32, of 4096 columns."""
    blocks = 128 * 12
    assert staging_bytes(Reduction(1 << 15, 4096), ADA) == pytest.approx(blocks * 128 * 128 * 4, rel=0.01)
    # Never fewer than what leaves a thread 256 values.
    assert staging_bytes(Reduction(1 << 20, 4096), ADA) >= (1 << 20) // 4 // 256 * 4096 * 128 * 4
    small = find_card("rtx3070ti")
    assert staging_bytes(Reduction(1 << 15, 4096), small) < staging_bytes(Reduction(1 << 15, 4096), ADA)


def sums(function, *shape, dtype=torch.float32):
    trace = Trace(1)
    recorder = Recorder(trace)
    with cuda_everywhere(), recorder:
        function(recorder.move(torch.empty(shape, dtype=dtype), "input"))
    return trace.operations


def test_only_sums_over_the_first_dimensions_are_staged() -> None:
    by_columns = sums(lambda x: x.sum((0, 1)), 4, 512, 1024)
    assert [one.reduction for one in by_columns if one.reduction] == [Reduction(2048, 1024)]
    assert list(staging_workspaces(by_columns, ADA).values()) == [16 * MIB + 32]
    for function in (lambda x: x.sum(-1), torch.sum, lambda x: x.transpose(0, 2).sum(0), lambda x: x.double().sum(0)):
        assert staging_workspaces(sums(function, 4, 512, 1024), ADA) == {}


def test_a_bias_has_its_gradient_summed_over_all_tokens() -> None:
    trace = Trace(1)
    recorder = Recorder(trace)
    with cuda_everywhere(), recorder:
        weight, bias = (recorder.move(torch.empty(shape), "input").requires_grad_() for shape in ((64, 32), (64,)))
        value = recorder.move(torch.empty(16, 100, 32), "input")
        out = torch.nn.functional.linear(value, weight, bias)
        out.backward(torch.empty_like(out))
    assert [one.reduction for one in trace.operations if one.reduction] == [Reduction(1600, 64)]

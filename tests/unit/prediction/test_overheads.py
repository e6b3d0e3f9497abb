"""Hidden memory by card and precision: the context, cuDNN's copies on Hopper, the kinds of jobs."""

from dataclasses import replace

import pytest

from vramfit.cards import CARDS, find_card
from vramfit.prediction.constants import CONSTANTS
from vramfit.prediction.overheads import (
    context_bytes,
    convolution_workspaces,
    cublas_workspaces,
    kept_workspaces,
    memory_kind,
)
from vramfit.prediction.trace_records import Convolution, OperationRecord, Trace
from vramfit.units import GIB, MIB

SHAPE = Convolution((8, 64, 56, 56), (256, 64, 1, 1), (8, 256, 56, 56), 1, transposed=False, channels_last=False)
CONVOLUTION = OperationRecord("convolution", "", "forward", "bfloat16", 10**9, 10**6, 10**6, 3, convolution=SHAPE)
PRODUCT = OperationRecord("mm", "", "forward", "bfloat16", 10**9, 10**6, 10**6, 7)


# Fitted: medians of what NVML showed beyond the replay, less the driver's reserve (half_precision.csv), MiB.
@pytest.mark.parametrize(("card", "measured_mib"), [("L40S", 411), ("H100 SXM", 669), ("H200", 770)])
def test_context_is_what_was_measured(card, measured_mib):
    assert context_bytes(find_card(card)) / MIB == pytest.approx(measured_mib, abs=8)


# Not fitted: figures reported by others.
@pytest.mark.parametrize(
    ("card", "low_mib", "high_mib"), [("T4", 150, 205), ("L4", 230, 280), ("RTX 6000 Ada", 400, 440)]
)
def test_context_of_other_cards_of_the_same_architectures_is_as_reported(card, low_mib, high_mib):
    assert low_mib <= context_bytes(find_card(card)) / MIB <= high_mib


def test_cuda_before_lazy_loading_keeps_a_gib_on_any_card():
    for card in CARDS:
        assert context_bytes(card, (11, 3)) == GIB > context_bytes(card, (11, 7)) == context_bytes(card)


# What the measured files give as the driver's own, MiB.
@pytest.mark.parametrize(("card", "reserve_mib"), [("L40S", 469), ("H100 SXM", 550), ("H200", 616)])
def test_nvml_shows_the_drivers_reserve_besides(card, reserve_mib):
    assert find_card(card).driver_reserve_bytes / MIB == pytest.approx(reserve_mib, abs=12)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_cuda_sees_no_more_than_nvml_shows(card):
    assert card.memory_bytes <= card.shown_bytes <= card.sold_gib * GIB


def test_cudnn_keeps_copies_of_the_largest_half_precision_convolution_on_hopper():
    h100, l40s = find_card("H100 SXM"), find_card("L40S")
    small = replace(SHAPE, input_shape=(8, 4, 8, 8), output_shape=(8, 4, 8, 8), weight_shape=(4, 4, 1, 1))
    trace = Trace(8, operations=[replace(CONVOLUTION, position=1, convolution=small), CONVOLUTION, PRODUCT])
    images, weights = 2 * 8 * 56 * 56 * (64 + 256), 256 * 64
    copies = images + round(CONSTANTS.hidden.hopper_weight_bytes * weights)
    assert kept_workspaces(trace, h100) == {1: copies, **cublas_workspaces(trace, h100)}
    assert kept_workspaces(trace, l40s) == cublas_workspaces(trace, l40s)


@pytest.mark.parametrize("changes", [{"dtype": "float32"}, {"convolution": replace(SHAPE, channels_last=True)}])
def test_cudnn_keeps_none_of_float32_or_of_nhwc_order(changes):
    assert kept_workspaces(Trace(8, operations=[replace(CONVOLUTION, **changes)]), find_card("H100 SXM")) == {}


def test_half_precision_is_replayed_without_workspaces_since_ampere():
    spatial = replace(CONVOLUTION, convolution=replace(SHAPE, weight_shape=(256, 64, 3, 3)))

    def workspace(operation, card, *, benchmark=False):
        return convolution_workspaces([operation], benchmark=benchmark, card=find_card(card))[3]

    assert workspace(spatial, "rtx3070ti") == 0
    assert workspace(spatial, "t4") > 0
    assert workspace(spatial, "rtx3070ti", benchmark=True) > 0
    assert workspace(replace(spatial, dtype="float32"), "rtx3070ti") > 0


def test_kinds_of_jobs_go_by_most_of_the_arithmetic():
    float32 = [replace(CONVOLUTION, dtype="float32"), replace(PRODUCT, dtype="float32", flops=10)]
    assert memory_kind(float32) == "float32 convolution"
    assert memory_kind([CONVOLUTION, *float32[1:]]) == "half convolution"
    assert memory_kind([PRODUCT, replace(CONVOLUTION, flops=10)]) == "half other"
    assert memory_kind([]) == "float32 other"


def test_only_float32_convolutions_reserve_more_than_the_replay():
    slack = CONSTANTS.hidden.slack
    assert slack["float32 convolution"] > 1
    assert {value for kind, value in slack.items() if kind != "float32 convolution"} == {1.0}


def test_cudnn_benchmark_keeps_its_slack_in_half_precision():
    from vramfit.prediction.predict import TracePredictor, card_budget
    from vramfit.prediction.trace_series import TraceSeries

    card = find_card("rtx3090")

    def slack(*, benchmark):
        series = TraceSeries(lambda _: Trace(1))
        return TracePredictor(series, card, card_budget(card), cudnn_benchmark=benchmark)._slack("half convolution")

    assert slack(benchmark=False) == 1.0
    assert slack(benchmark=True) == CONSTANTS.hidden.benchmark_slack > 1.0

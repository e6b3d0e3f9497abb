"""Hidden memory by card and precision: the context, cuDNN's copies on Hopper, the kinds of jobs."""

from dataclasses import replace

import pytest

from vramfit.cards import CARDS, find_card
from vramfit.prediction.constants import CONSTANTS
from vramfit.prediction.hopper_convolutions import workspaces
from vramfit.prediction.overheads import (
    context_bytes,
    convolution_workspaces,
    kept_workspaces,
    memory_kind,
    passing_workspaces,
    slack,
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


# Read off recordings of an H200 (torch 2.11, cuDNN 9.19): what each convolution took while it ran, MiB.
@pytest.mark.parametrize(
    ("image", "weight", "out", "more", "measured_mib"),
    [
        ((4, 96, 512, 512), (48, 96, 3, 3), (4, 48, 512, 512), {}, 288.08),
        ((32, 64, 56, 56), (64, 64, 3, 3), (32, 64, 56, 56), {}, 24.571),
        ((32, 256, 56, 56), (512, 256, 1, 1), (32, 512, 28, 28), {"stride": (2, 2)}, 73.5),
        ((32, 512, 7, 7), (2048, 512, 1, 1), (32, 2048, 7, 7), {}, 7.657),
        ((32, 64, 56, 56), (256, 64, 1, 1), (32, 256, 56, 56), {}, 0.0),
        ((48, 576, 14, 14), (576, 24, 3, 3), (48, 576, 14, 14), {"groups": 24}, 20.91),
        ((96, 64, 112, 112), (64, 1, 3, 3), (96, 64, 56, 56), {"groups": 64, "stride": (2, 2)}, 0.0),
        ((4, 96, 512, 512), (48, 96, 3, 3), (4, 48, 512, 512), {"channels_last": True}, 0.0),
    ],
)
def test_cudnn_copies_into_nhwc_order_on_hopper(image, weight, out, more, measured_mib):
    shape = replace(SHAPE, input_shape=image, weight_shape=weight, output_shape=out, **{"stride": (1, 1), **more})
    taken = workspaces(replace(CONVOLUTION, dtype="float16", convolution=shape)).get(CONVOLUTION.position, 0)
    assert taken / MIB == pytest.approx(measured_mib, abs=0.01)


@pytest.mark.parametrize(
    ("image", "weight", "out", "measured_mib"),
    [
        ((32, 256, 56, 56), (64, 256, 1, 1), (32, 64, 56, 56), 2.0),
        ((32, 512, 28, 28), (256, 512, 1, 1), (32, 256, 28, 28), 16.0),
        ((32, 256, 14, 14), (1024, 256, 1, 1), (32, 1024, 14, 14), 15.313),
        ((4, 48, 512, 512), (2, 48, 1, 1), (4, 2, 512, 512), 201.134),
        ((2, 480, 192, 192), (29, 480, 1, 1), (2, 29, 192, 192), 72.79),
    ],
)
def test_cudnn_sums_the_gradient_of_pointwise_weights_by_sample_on_hopper(image, weight, out, measured_mib):
    shape = replace(
        SHAPE, input_shape=image, weight_shape=weight, output_shape=out, stride=(1, 1), weight_gradient=True
    )
    taken = workspaces(replace(CONVOLUTION, phase="backward", dtype="float16", convolution=shape))
    assert taken[CONVOLUTION.position] / MIB == pytest.approx(measured_mib, abs=1.3)


SPATIAL = replace(SHAPE, weight_shape=(256, 64, 3, 3), stride=(1, 1))
COPIES = 2 * (8 * 64 * 56 * 56 + 8 * 256 * 56 * 56 + 256 * 64 * 9)
SUMS = 4 * MIB  # of weights' gradients


@pytest.mark.parametrize(
    ("of_image", "of_weights", "taken"),
    [
        (False, False, {3: COPIES}),  # forward, once more for a checkpoint
        (True, False, {3: COPIES}),  # frozen weights
        (False, True, {3: COPIES + SUMS}),
        (True, True, {2: COPIES, 3: COPIES + SUMS}),
    ],
)
def test_a_convolution_takes_workspaces_where_its_gradients_are_made(of_image, of_weights, taken):
    shape = replace(SPATIAL, image_gradient=of_image, weight_gradient=of_weights)
    assert workspaces(replace(CONVOLUTION, phase="backward", convolution=shape)) == taken


@pytest.mark.parametrize("larger_first", [True, False])
def test_of_workspaces_at_one_event_the_largest_counts(larger_first):
    h100, biased = find_card("H100 SXM"), replace(PRODUCT, name="addmm", position=CONVOLUTION.position)
    spatial = replace(CONVOLUTION, convolution=SPATIAL)
    small = replace(CONVOLUTION, convolution=replace(SPATIAL, input_shape=(8, 64, 7, 7), output_shape=(8, 256, 7, 7)))
    pair = [spatial, small] if larger_first else [small, spatial]
    assert passing_workspaces([*pair, biased], h100, benchmark=False) == {3: COPIES}
    assert passing_workspaces([small, biased], h100, benchmark=False) == {3: MIB}


def test_on_hopper_every_part_of_workspaces_is_the_whole():
    h100, l40s = find_card("H100 SXM"), find_card("L40S")
    shape = replace(SHAPE, weight_shape=(256, 64, 3, 3), stride=(1, 1))
    spatial = replace(CONVOLUTION, dtype="float32", convolution=shape)

    def taken(card, part):
        return convolution_workspaces([spatial], benchmark=False, part=part, card=card)[CONVOLUTION.position]

    assert taken(h100, 0.0) == taken(h100, 1.0) > 0
    assert taken(l40s, 0.0) == 0 < taken(l40s, 1.0)


def test_a_biased_product_takes_cublaslts_workspace_while_it_runs():
    biased = replace(PRODUCT, name="addmm")
    assert passing_workspaces([biased], find_card("rtx3060"), benchmark=False) == {7: MIB}
    assert passing_workspaces([PRODUCT], find_card("rtx3060"), benchmark=False) == {}
    assert kept_workspaces(Trace(8, operations=[CONVOLUTION]), find_card("H100 SXM")) == {}


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
    factors = CONSTANTS.hidden.slack
    assert factors["float32 convolution"] > 1
    assert {value for kind, value in factors.items() if kind != "float32 convolution"} == {1.0}


def test_cudnn_benchmark_keeps_its_slack_in_half_precision():
    from vramfit.prediction.predict import card_budget
    from vramfit.prediction.trace_predictor import TracePredictor
    from vramfit.prediction.trace_series import TraceSeries

    card = find_card("rtx3090")

    def factor(*, benchmark):
        series = TraceSeries(lambda _: Trace(1))
        return TracePredictor(series, card, card_budget(card), cudnn_benchmark=benchmark)._slack("half convolution")

    assert factor(benchmark=False) == 1.0
    assert factor(benchmark=True) == CONSTANTS.hidden.benchmark_slack > 1.0


def test_half_precision_convolutions_reserve_a_little_more_on_hopper():
    h200, l40s = find_card("H200"), find_card("L40S")
    assert slack("half convolution", h200) == CONSTANTS.hidden.hopper_slack > slack("half convolution", l40s)
    assert slack("half other", h200) == slack("half other", l40s)
    assert slack("half convolution", h200, benchmark=True) == CONSTANTS.hidden.benchmark_slack

"""What an update and the loss hold: gradients are unscaled in place and gone once used; a loss works in pieces."""

from dataclasses import replace

import pytest

from vramfit.jobs.levers.text import parse_levers
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.prediction.tracing.trace import trace_step

OPTIONS = LandmarkJobOptions(model="hrnet_w18_small", image_size=(128, 128), landmarks=4, clip_norm=1.0, ema_decay=0.9)
SAMPLES = 2


@pytest.fixture(scope="module")
def trace():
    return trace_step(landmark_job(OPTIONS), SAMPLES)


def kinds_held(trace, position):
    """Bytes held before an event, by kind."""
    held = {}
    for event in trace.events[:position]:
        storage = trace.storages[event if event >= 0 else ~event]
        held[storage.kind] = held.get(storage.kind, 0) + (1 if event >= 0 else -1) * storage.size_bytes
    return held


def test_unscaling_clipping_and_a_fused_step_copy_no_gradient(trace):
    start, end = trace.marks["step 2"], trace.marks["validation"]
    parameters = kinds_held(trace, start)["parameter"]
    made = [trace.storages[event] for event in trace.events[start:end] if event >= 0]
    assert sum(storage.size_bytes for storage in made if storage.phase == "optimizer") < 0.01 * parameters


def test_an_average_on_the_host_takes_nothing_of_the_card(trace):
    at_home = landmark_job(replace(OPTIONS, levers=parse_levers("ema_on_host")))
    held, less = (kinds_held(one, one.marks["step 1"]) for one in (trace, trace_step(at_home, SAMPLES, steps=1)))
    assert held["average"] == held["parameter"] + held["buffer"]
    assert "average" not in less


def test_gradients_are_gone_before_the_next_forward_pass(trace):
    for mark in ("step 2", "validation"):
        assert kinds_held(trace, trace.marks[mark]).get("gradient", 0) == 0
    position = max(one.position for one in trace.part("step 2") if one.phase == "backward")
    held = kinds_held(trace, position)
    assert held["gradient"] > 0.9 * held["parameter"]


@pytest.mark.parametrize("stride", [4, 1])
def test_the_loss_keeps_heatmaps_and_targets_and_little_else_at_any_stride(stride):
    options = replace(OPTIONS, heatmap_stride=stride, landmarks=29)
    traced = trace_step(landmark_job(options), SAMPLES, steps=1, validation=False)
    forward = [one.position for one in traced.operations if one.phase == "forward"]
    backward = [one.position for one in traced.operations if one.phase == "backward"]
    before, after = (sum(kinds_held(traced, position).values()) for position in (forward[-1], backward[0]))
    elements = SAMPLES * options.landmarks * (128 // stride) ** 2
    # Heatmaps and targets were there before; autograd's own formula would keep a dozen float32 an element.
    assert after - before < 0.5 * 4 * elements

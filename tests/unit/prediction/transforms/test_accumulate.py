"""A step rewritten to run two micro-batches takes what a traced one of two micro-batches takes."""

from dataclasses import replace

import pytest

from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.prediction.overheads import convolution_workspaces
from vramfit.prediction.predict import Predictor, card_budget, find_card
from vramfit.prediction.replay_trace import replay_trace
from vramfit.prediction.tracing import trace as tracing
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.accumulate import accumulating

OPTIONS = LandmarkJobOptions(model="hrnet_w18_small", image_size=(128, 128), landmarks=4, amp="fp16")
LATE = {"late_zero_grad": True}
LEVERED = replace(OPTIONS, amp=None, ema_decay=0.99, clip_norm=1.0)
SAMPLES = 4
LOSS_BYTES = 512  # a traced second pass adds its loss to one that is there; the rewritten one has a loss of its own


def accumulate(traced, recorder, host, **_):
    with recorder:
        recorder.mark("step 1")
        traced.train(host, SAMPLES)
        recorder.mark("step 2")
        traced.backward(host, SAMPLES)
        traced.train(host, SAMPLES)
        recorder.mark("validation")
        recorder.phase = "validation"
        traced.validate(host)
        recorder.mark("end")


@pytest.fixture(
    scope="module",
    params=[(OPTIONS, {}), (LEVERED, {}), (OPTIONS, LATE)],
    ids=["plain", "average, clipping, float32", "gradients cleared late"],
)
def traces(request):
    options, changes = request.param
    job = replace(landmark_job(options), **changes)
    plain = trace_step(job, SAMPLES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "_run", accumulate)
        return plain, accumulating(plain), trace_step(job, SAMPLES)


def peaks(trace):
    return replay_trace(trace, convolution_workspaces(trace.operations, benchmark=False))


def test_peaks_are_those_of_a_traced_accumulated_step(traces) -> None:
    plain, rewritten, traced = (peaks(trace) for trace in traces)
    assert rewritten.reserved_bytes == traced.reserved_bytes
    assert 0 <= rewritten.allocated_bytes - traced.allocated_bytes <= LOSS_BYTES
    assert rewritten.allocated_bytes > plain.allocated_bytes


def test_every_storage_of_the_second_pass_is_freed(traces) -> None:
    plain, rewritten, traced = traces
    assert len(rewritten.events) == len(traced.events)
    assert rewritten.allocated_bytes()[-1] == plain.allocated_bytes()[-1]
    assert min(rewritten.allocated_bytes()) >= 0


def test_operations_keep_their_places(traces) -> None:
    _, rewritten, traced = traces
    positions = [operation.position for operation in rewritten.operations]
    assert positions == sorted(positions)
    # Events apart: the loss of the rewritten pass comes and goes where the traced one adds to what is there.
    mine, theirs = ([one for one in trace.operations if one.convolution is not None] for trace in (rewritten, traced))
    assert [one.name for one in mine] == [one.name for one in theirs]
    assert [one.position for one in mine] == pytest.approx([one.position for one in theirs], abs=2)


def test_a_trace_without_an_update_stays_as_it_is(traces) -> None:
    plain = traces[0]
    without = replace(plain, operations=[one for one in plain.operations if one.phase != "optimizer"])
    assert accumulating(without) is without


def test_a_predicted_trial_has_an_accumulated_step() -> None:
    job, card = landmark_job(OPTIONS), find_card("rtx3070ti")
    predictor = Predictor(job, card, card_budget(card))
    plain = replay_trace(predictor.trace(SAMPLES)).allocated_bytes
    assert predictor.trial(SAMPLES).peak_allocated_bytes > plain

"""An OOM anywhere in a step leaves no trace in what is learned."""

import gc

import pytest
import small_runs as small
import torch
from faults import FaultAt
from torch.utils._python_dispatch import TorchDispatchMode

from vramfit.errors import OutOfMemory
from vramfit.jobs.step import Step
from vramfit.training.recovery import Recovery, even_micro_batch, made_again


@pytest.fixture(scope="module", autouse=True)
def _spare_what_other_tests_left():
    """Every fault collects garbage: a hundred times over all that earlier tests hold would take most of the time."""
    gc.collect()
    gc.freeze()


CI_SAMPLE = [*range(0, 40, 6), *range(41, 200, 11)]


def trained(job, steps=3, k=None, at_step=1, micro_batch=4):
    """Weights after some steps, with a fault at operation k of one of them; and the recovery."""
    torch.manual_seed(0)
    events = []
    recovery = Recovery(Step(job, "cpu"), micro_batch, on_event=events.append)
    struck = False
    for number in range(steps):
        if k is not None and number == at_step:
            batch = job.batch(8)
            with FaultAt(k) as fault:
                recovery.train(batch, 8)
            struck = fault.struck
        else:
            recovery.train(job.batch(8), 8)
    return recovery, events, struck


@pytest.mark.parametrize("at_step", [0, 1])
@pytest.mark.parametrize("optimizer", [small.sgd, small.adamw])
def test_a_fault_at_any_operation_changes_no_weight(optimizer, at_step):
    job = small.job(optimizer=optimizer, ema_decay=0.9, clip_norm=1.0)
    clean, _, _ = trained(job)
    phases = set()
    for k in CI_SAMPLE:
        recovery, events, struck = trained(job, k=k, at_step=at_step)
        if not struck:
            continue
        assert len(events) == 1
        phases.add(events[0].phase)
        assert small.difference(small.weights(recovery.step), small.weights(clean.step)) < 1e-9, k
        averages = [list(one.step.average.model.state_dict().values()) for one in (recovery, clean)]
        assert small.difference(*averages) < 1e-9, k
    assert phases == {"forward", "backward", "optimizer"}


def test_gradients_that_are_cleared_late_are_those_of_one_step_after_a_fault():
    job = small.job(late_zero_grad=True)
    clean, _, _ = trained(job)
    for k in range(3, 90, 14):
        recovery, events, struck = trained(job, k=k)
        assert struck == bool(events)
        assert small.difference(small.weights(recovery.step), small.weights(clean.step)) < 1e-9, k


def test_a_rank_without_samples_has_no_gradients_of_the_step_before():
    recovery, _, _ = trained(small.job(late_zero_grad=True))
    assert all(parameter.grad is not None for parameter in recovery.step.model.parameters())
    before = small.weights(recovery.step)
    recovery.train(None, 8)
    assert small.difference(small.weights(recovery.step), before) == 0


class TooLarge(TorchDispatchMode):
    """A card that holds so many samples and no more."""

    def __init__(self, samples):
        super().__init__()
        self.samples = samples

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        is_hidden_layer = "mm" in str(func) and result.dim() == 2 and result.shape[1] == 8
        if is_hidden_layer and result.shape[0] > self.samples and result.shape[0] != small.FEATURES:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
        return result


def test_halves_until_it_fits_and_stays_there():
    job, events = small.job(), []
    recovery = Recovery(Step(job, "cpu"), 8, on_event=events.append)
    recovery.position = (2, 7)
    with TooLarge(2):
        recovery.train(job.batch(8), 8)
        recovery.train(job.batch(8), 8)
    assert [(event.micro_batch_before, event.micro_batch_after) for event in events] == [(8, 4), (4, 2)]
    assert recovery.micro_batch == 2
    assert (events[0].epoch, events[0].step, events[0].phase) == (2, 7, "forward")


def test_a_single_sample_that_does_not_fit_ends_the_run():
    job = small.job()
    recovery = Recovery(Step(job, "cpu"), 4)
    before = small.weights(recovery.step)
    with TooLarge(0), pytest.raises(OutOfMemory, match="micro-batch of 1"):
        recovery.train(job.batch(4), 4)
    assert small.difference(small.weights(recovery.step), before) == 0


def test_validation_recovers_without_a_sample_lost():
    job = small.job()
    recovery = Recovery(Step(job, "cpu"), 8)
    inputs, targets = job.batch(8)
    whole, _ = recovery.step.validate((inputs, targets))
    for k in range(12):
        recovery.validation_batch, events = 8, []
        recovery._on_event = events.append
        with FaultAt(k) as fault:
            parts = list(recovery.validate((inputs, targets)))
        assert not fault.struck or [event.phase for event in events] == ["validation"]
        assert torch.allclose(torch.cat([outputs for outputs, _, _ in parts]), whole, atol=1e-12)
        assert [index for _, _, place in parts for index in range(8)[place]] == list(range(8))


@pytest.mark.parametrize(("samples", "most", "even"), [(7, 6, 4), (6, 6, 6), (6, 4, 3), (5, 1, 1), (2, 6, 2)])
def test_parts_are_even(samples, most, even):
    assert even_micro_batch(samples, most) == even


def test_building_is_tried_again_once():
    def building(failures):
        def build():
            if failures:
                failures.pop()
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return "built"

        return made_again(build, "the network and its weights")

    assert building([]) == building([1]) == "built"
    with pytest.raises(OutOfMemory, match="before the first step, for the network and its weights"):
        building([1, 2])


def test_another_error_of_building_passes():
    def build():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        made_again(build, "the network")

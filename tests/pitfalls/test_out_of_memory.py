"""Running out of memory: what it leaves behind, how it looks, and what a retry must put back first."""

import gc
import weakref

import pytest
import small_runs as small
import torch
from faults import FaultAt
from scripted_card import FACES, ScriptedCard, hungry_job, poison

from vramfit.errors import VramfitError
from vramfit.jobs.step import Step
from vramfit.measure import find
from vramfit.measure.trial import run_trial
from vramfit.oom import is_out_of_memory
from vramfit.plan.choose import batch_norm_notes, divide_batch
from vramfit.records import Budget, Verdict
from vramfit.training.recovery import Recovery
from vramfit.units import GIB

BUDGET = Budget(total_bytes=8 * GIB)


def test_a_caught_error_keeps_the_failed_steps_tensors_alive_so_a_retry_begins_outside_the_except():
    """The traceback of a caught error holds every frame of the step, and they hold its activations."""
    job, seen = small.job(), []
    recovery = Recovery(Step(job, "cpu"), 4)
    whole = recovery.step.backward

    def backward(batch, micro_batch):
        activation = torch.zeros(10)
        seen.append(weakref.ref(activation))
        if len(seen) == 1:
            raise FACES["torch"]()
        assert seen[0]() is None
        return whole(batch, micro_batch)

    recovery.step.backward = backward
    gc.disable()
    try:
        recovery.train(job.batch(4), 4)
    finally:
        gc.enable()
    assert len(seen) == 2


def test_a_caught_error_keeps_the_failed_steps_tensors_alive_so_a_search_frees_them_first(monkeypatch):
    """The same, in a search through anybody's training code: the cache is emptied once the tensors are gone."""
    seen, alive = [], []

    def step(size):
        activations = torch.ones(size)
        alive.append(weakref.ref(activations))
        if size > 4:
            raise FACES["torch"]()

    monkeypatch.setattr(find, "release_memory", lambda: seen.append([one() is None for one in alive]))
    find.find_batch_size(step)
    assert seen
    assert all(all(gone) for gone in seen)


@pytest.mark.parametrize("face", FACES)
def test_out_of_memory_has_many_faces_and_each_is_known_everywhere(face):
    """torch, the CUDA runtime, cuBLAS and cuDNN each report a failed allocation in words of their own."""
    assert is_out_of_memory(FACES[face]())
    card = ScriptedCard(face=face)
    assert find.find_batch_size(card.step, start=6).batch_size == card.true_limit == 7
    made = run_trial(hungry_job(card), 9, BUDGET, card)
    assert made.verdict is Verdict.OOM
    assert made.note.startswith("out of memory in the first step: ")
    assert made.step_time_s is None
    events = []
    job = small.job()
    recovery = Recovery(Step(job, "cpu"), 4, on_event=events.append)
    with FaultAt(9, FACES[face]()):
        recovery.train(job.batch(4), 4)
    assert [event.micro_batch_after for event in events] == [2]


def test_an_illegal_memory_access_is_not_out_of_memory_and_poisons_all_that_follows():
    """No smaller batch mends a broken context: it ends a trial, a search and a run."""
    assert not is_out_of_memory(poison())
    broken = ScriptedCard(poisoned=True)
    with pytest.raises(VramfitError, match="illegal memory access"):
        run_trial(hungry_job(broken), 6, BUDGET, broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        find.find_batch_size(ScriptedCard(sticky=True).step, start=10)
    job = small.job()
    recovery = Recovery(Step(job, "cpu"), 4)
    batch = job.batch(4)
    with pytest.raises(RuntimeError, match="illegal memory access"), FaultAt(3, poison()):
        recovery.train(batch, 4)


@pytest.mark.parametrize("optimizer", [small.sgd, small.adamw])
def test_a_half_finished_optimizer_step_is_undone_before_it_is_run_again(optimizer):
    """A foreach optimizer moves all parameters operation by operation; run again after it broke it goes too far."""
    job = small.job(optimizer=optimizer)
    batch = job.batch(4)
    clean = _stepped(job)
    operations = _operations_of_an_update(_stepped(job), batch)
    clean.train(batch, 4)
    wrong = 0
    for k in range(0, operations, 3):
        recovery = Recovery(_stepped(job), 4)
        recovery.step.update = _failing_once(recovery.step, k)
        recovery.train(batch, 4)
        assert small.difference(small.weights(recovery.step), small.weights(clean)) < 1e-9, k
        naive = _stepped(job)
        naive.backward(batch, 4)
        update = _failing_once(naive, k)
        with pytest.raises(torch.OutOfMemoryError):
            update()
        update()
        wrong += small.difference(small.weights(naive), small.weights(clean)) > 1e-9
    assert wrong > 0


def _stepped(job):
    """A step with optimizer state."""
    torch.manual_seed(0)
    step = Step(job, "cpu")
    step.train(job.batch(4), 4)
    return step


def _operations_of_an_update(step, batch):
    step.backward(batch, 4)
    with FaultAt(10_000) as fault:
        step.update()
    return fault.count


def _failing_once(step, k):
    whole, failed = step.update, []

    def update():
        if failed:
            return whole()
        failed.append(k)
        with FaultAt(k):
            return whole()

    return update


def test_a_half_finished_step_has_moved_batch_norm_buffers_and_random_states_too():
    """With the same split again, a network with batch normalisation and dropout repeats the step bit for bit."""
    job = small.job(model=small.network_with_memory)
    clean = _of_three_steps(job, None)
    for k in range(0, 120, 11):
        assert small.difference(_of_three_steps(job, k), clean) == 0, k


def _of_three_steps(job, k):
    """The weights and buffers after three steps, with a fault at operation k of the second."""
    torch.manual_seed(0)
    recovery = Recovery(Step(job, "cpu"), 8)
    recovery._halved = lambda _failure, micro_batch: micro_batch
    for number in range(3):
        batch = job.batch(8)
        with FaultAt(k if number == 1 and k is not None else 10_000):
            recovery.train(batch, 8)
    return small.weights(recovery.step)


def test_splitting_a_batch_is_not_neutral_with_batch_normalisation_and_that_is_said():
    """Without it the gradient is the whole batch's to the last digits; with it each part is normalised by itself."""
    plain, normed = small.job(), small.job(model=_normalised)
    assert _difference_by_splitting(plain) < 1e-12
    assert _difference_by_splitting(normed) > 1e-6
    (note,) = batch_norm_notes(divide_batch(8, 4))
    assert note.startswith("BatchNorm sees micro-batches of 4, not the effective batch")
    assert batch_norm_notes(divide_batch(8, 8)) == []


def _normalised():
    layers = [torch.nn.Linear(small.FEATURES, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)]
    return torch.nn.Sequential(*layers).double()


def _difference_by_splitting(job):
    whole, parts = (_after_one_step(job, micro_batch) for micro_batch in (8, 4))
    return small.difference(whole, parts)


def _after_one_step(job, micro_batch):
    torch.manual_seed(0)
    step = Step(job, "cpu")
    step.train(job.batch(8), micro_batch)
    return [parameter.detach().clone() for parameter in step.model.parameters()]

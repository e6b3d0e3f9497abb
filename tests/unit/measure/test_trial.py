"""The trial's schedule, run on a CPU with a scripted card's memory."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from scripted_card import FACES, Hungry, ScriptedCard, poison
from torch import nn

from vramfit.errors import VramfitError
from vramfit.jobs.job import Job
from vramfit.jobs.step import Precision
from vramfit.measure import trial as module
from vramfit.measure.memory import MemoryFigures
from vramfit.measure.trial import judge, run_trial
from vramfit.records import Budget, Verdict
from vramfit.units import GIB, MIB


def batch(size):
    return torch.randn(size, 4), torch.randn(size, 1)


def job_on(card, **changes):
    settings = {
        "model": partial(Hungry, card),
        "batch": batch,
        "loss": nn.functional.mse_loss,
        "optimizer": partial(torch.optim.AdamW, lr=1e-3),
        "amp": None,
        "ema_decay": 0.9,
    }
    return Job(**(settings | changes))


def budget(**parts):
    return Budget(total_bytes=8 * GIB, **parts)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH_SECONDS", 0.0)


def test_a_trial_that_fits():
    card = ScriptedCard()
    made = run_trial(job_on(card), 6, budget(), card)
    assert made.verdict is Verdict.FITS
    assert made.source == "measured"
    assert made.peak_reserved_bytes == card.needs(6)
    assert made.context_bytes == card.context_bytes
    assert made.device_used_bytes == card.needs(6) + card.context_bytes
    assert made.headroom_bytes == 8 * GIB - made.device_used_bytes
    assert made.step_time_s > 0
    assert card.steps >= 1 + module.COUNTED_STEPS + 1
    assert card.limit_bytes is None


def test_a_cap_makes_a_big_card_small_and_says_so():
    card = ScriptedCard(capacity_bytes=24 * GIB)
    small = Budget(total_bytes=24 * GIB, requested_bytes=4 * GIB)
    assert run_trial(job_on(card), 3, small, card).emulated
    assert run_trial(job_on(card), 6, small, card).verdict is Verdict.OOM
    assert not run_trial(job_on(card), 6, Budget(total_bytes=24 * GIB), card).emulated


@pytest.mark.parametrize("face", FACES)
def test_every_face_of_out_of_memory_is_a_verdict(face):
    card = ScriptedCard(face=face)
    made = run_trial(job_on(card), 9, budget(), card)
    assert made.verdict is Verdict.OOM
    assert made.note.startswith("out of memory in the first step: ")
    assert made.step_time_s is None


def test_optimizer_state_appears_with_the_first_step_that_the_scaler_does_not_skip():
    # Nine optimizer steps' worth of memory is missing until the scaler lets one through.
    card = ScriptedCard(optimizer_bytes=2 * GIB, skipped_steps=4)
    assert card.needs(6, first=True) < 8 * GIB - card.context_bytes < card.needs(6)
    job = job_on(card, loss=_blows_up_at_first(4))
    precision = Precision(None, torch.amp.GradScaler("cpu", enabled=True))
    made = run_trial(job, 6, budget(), card, precision=precision)
    assert made.verdict is Verdict.OOM
    assert "a training step" in made.note


def _blows_up_at_first(steps):
    calls = []

    def loss(outputs, targets):
        if torch.is_grad_enabled():
            calls.append(1)
        value = nn.functional.mse_loss(outputs, targets)
        return value * torch.inf if len(calls) <= steps else value

    return loss


def test_a_scaler_that_skips_everything_is_noted():
    card = ScriptedCard()
    precision = Precision(None, torch.amp.GradScaler("cpu", enabled=True))
    made = run_trial(job_on(card, loss=_blows_up_at_first(10_000)), 2, budget(), card, precision=precision)
    assert "the scaler skipped every step" in made.note


def test_validation_may_peak_above_training():
    card = ScriptedCard(validation=1.5)
    made = run_trial(job_on(card), 6, budget(), card)
    assert made.verdict is Verdict.OOM
    assert made.note.startswith("out of memory in validation")


def test_a_retry_after_warm_up_means_it_does_not_fit():
    card = ScriptedCard(retries_at=lambda n: 1)
    made = run_trial(job_on(card), 6, budget(), card)
    assert made.verdict is Verdict.OVER_BUDGET
    assert made.allocator_retries >= 1
    assert "retry" in made.note


def test_a_retry_in_warm_up_is_forgiven():
    figures = MemoryFigures(GIB, GIB, 0, retries=2)
    assert judge(figures, budget(), warm_up_retries=2) is Verdict.FITS
    assert judge(figures, budget(), warm_up_retries=1) is Verdict.OVER_BUDGET


def test_the_context_counts_and_more_than_the_card_has_is_a_spill():
    figures = MemoryFigures(7 * GIB, 7 * GIB, GIB + MIB, 0)
    assert judge(figures, budget(), 0) is Verdict.OVER_BUDGET
    assert judge(figures, budget(), 0, total_bytes=8 * GIB) is Verdict.SPILLED
    assert judge(figures, Budget(total_bytes=9 * GIB), 0, total_bytes=9 * GIB) is Verdict.FITS


def test_the_last_partial_batch_is_tried():
    # A size of 2 takes more here than one of 6 does: another shape, another algorithm.
    card = ScriptedCard(extra=lambda n: 9 * GIB if n == 2 else 0)
    assert run_trial(job_on(card), 6, budget(), card).verdict is Verdict.FITS
    made = run_trial(job_on(card), 6, budget(), card, last_batch=2)
    assert made.verdict is Verdict.OOM
    assert made.note.startswith("out of memory in the last partial batch of 2")


class Normed(Hungry):
    def __init__(self, card):
        super().__init__(card)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, inputs):
        return self.norm(super().forward(inputs))

    def __deepcopy__(self, memo):
        return Normed(self.card)


def test_a_final_batch_of_one_breaks_batch_norm_and_is_said():
    card = ScriptedCard()
    made = run_trial(job_on(card, model=partial(Normed, card)), 6, budget(), card, last_batch=1)
    assert made.verdict is Verdict.FITS
    assert "a last batch of 1 fails" in made.note


def test_a_job_that_is_broken_is_an_error_and_not_a_small_card():
    card = ScriptedCard()
    with pytest.raises(VramfitError, match=r"fails in the first step \(RuntimeError"):
        run_trial(job_on(card, batch=lambda n: (torch.ones(n, 5), torch.ones(n, 1))), 6, budget(), card)
    assert card.limit_bytes is None


def test_an_illegal_memory_access_is_not_out_of_memory():
    card = ScriptedCard(poisoned=True)
    with pytest.raises(VramfitError, match="illegal memory access"):
        run_trial(job_on(card), 6, budget(), card)
    assert "illegal" in str(poison())


def test_a_trial_in_process_leaves_nothing_behind():
    card = ScriptedCard()
    network = Hungry(card)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    before = _everything(network, optimizer)
    job = job_on(card, model=lambda: network, cudnn_benchmark=True)
    assert run_trial(job, 3, budget(), card, last_batch=2).verdict is Verdict.FITS
    assert run_trial(job, 30, budget(), card).verdict is Verdict.OOM
    for was, now in zip(before, _everything(network, optimizer), strict=True):
        assert was == now


def _everything(network, optimizer):
    tensors = [
        *network.state_dict().values(),
        *(parameter.grad for parameter in network.parameters()),
        *(value for state in optimizer.state.values() for value in state.values()),
        torch.get_rng_state(),
    ]
    return [
        *(tensor.clone().numpy().tobytes() for tensor in tensors),
        random.getstate(),
        np.random.get_state()[1].tobytes(),
        torch.backends.cudnn.benchmark,
        network.training,
    ]

"""The trial's schedule, run on a CPU with a scripted card's memory."""

import random

import numpy as np
import pytest
import torch
from scripted_card import Hungry, ScriptedCard, blows_up_at_first, hungry_job

from vramfit.errors import VramfitError
from vramfit.jobs.step import Precision
from vramfit.measure import trial as module
from vramfit.measure.memory import MemoryFigures
from vramfit.measure.trial import judge, run_trial
from vramfit.records import Budget, Verdict
from vramfit.units import GIB


def budget(**parts):
    return Budget(total_bytes=8 * GIB, **parts)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH_SECONDS", 0.0)


def test_a_trial_that_fits():
    card = ScriptedCard()
    made = run_trial(hungry_job(card), 6, budget(), card)
    assert made.verdict is Verdict.FITS
    assert made.source == "measured"
    assert made.peak_reserved_bytes == card.needs(6)
    assert made.context_bytes == card.context_bytes
    assert made.device_used_bytes == card.needs(6) + card.context_bytes
    assert made.headroom_bytes == 8 * GIB - made.device_used_bytes
    assert made.step_time_s > 0
    assert card.steps >= 1 + module.COUNTED_STEPS + 1
    assert card.limit_bytes is None


def test_a_scaler_that_skips_everything_is_noted():
    card = ScriptedCard()
    precision = Precision(None, torch.amp.GradScaler("cpu", enabled=True))
    made = run_trial(hungry_job(card, loss=blows_up_at_first(10_000)), 2, budget(), card, precision=precision)
    assert "the scaler skipped every step" in made.note


def test_a_retry_in_warm_up_is_forgiven():
    figures = MemoryFigures(GIB, GIB, 0, retries=2)
    assert judge(figures, budget(), warm_up_retries=2) is Verdict.FITS
    assert judge(figures, budget(), warm_up_retries=1) is Verdict.OVER_BUDGET


def test_a_job_that_is_broken_is_an_error_and_not_a_small_card():
    card = ScriptedCard()
    with pytest.raises(VramfitError, match=r"fails in the first step \(RuntimeError"):
        run_trial(hungry_job(card, batch=lambda n: (torch.ones(n, 5), torch.ones(n, 1))), 6, budget(), card)
    assert card.limit_bytes is None


def test_a_trial_in_process_leaves_nothing_behind():
    card = ScriptedCard()
    network = Hungry(card)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    before = _everything(network, optimizer)
    job = hungry_job(card, model=lambda: network, cudnn_benchmark=True)
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

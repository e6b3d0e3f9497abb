"""Trials in a spawned child: what happens when it answers, dies, hangs, or cannot take the job over."""

import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from vramfit.errors import VramfitError
from vramfit.jobs.job import Job
from vramfit.measure.worker import TrialRequest, measure_trial
from vramfit.records import Budget, Trial, Verdict
from vramfit.units import GIB

BUDGET = Budget(total_bytes=8 * GIB)


def batch(size):
    return torch.ones(size, 4), torch.ones(size, 1)


def make_job():
    return Job(
        model=partial(nn.Linear, 4, 1),
        batch=batch,
        loss=nn.functional.mse_loss,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        amp=None,
    )


def answers(job: Job, request: TrialRequest) -> Trial:
    return Trial(
        source="measured",
        micro_batch=request.micro_batch,
        verdict=Verdict.FITS,
        budget_bytes=request.budget.budget_bytes,
        device_used_bytes=os.getpid(),
    )


def is_killed(job, request):
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(job, request):
    time.sleep(60)


def fails(job, request):
    raise VramfitError("The job fails in validation.")


def test_a_trial_runs_in_another_process():
    made = measure_trial(make_job(), 4, BUDGET, runner=answers)
    assert made.micro_batch == 4
    assert made.device_used_bytes != os.getpid()
    assert made.note == ""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_killed_child_is_a_failed_trial_and_a_factory_will_do():
    made = measure_trial(make_job, 4, BUDGET, runner=is_killed)
    assert made.verdict is Verdict.FAILED
    assert made.note == "its process was killed (signal 9)"


def test_a_child_that_hangs_is_stopped():
    begin = time.monotonic()
    made = measure_trial(make_job, 4, BUDGET, runner=hangs, timeout_s=5)
    assert made.verdict is Verdict.FAILED
    assert made.note == "stopped after 5 s without an end"
    assert time.monotonic() - begin < 40


def test_a_job_that_fails_says_why():
    with pytest.raises(VramfitError, match="fails in validation"):
        measure_trial(make_job, 4, BUDGET, runner=fails)


def test_a_job_that_does_not_pickle_runs_here_and_says_so():
    job = replace(make_job(), loss=lambda outputs, targets: (outputs - targets).square().mean())
    made = measure_trial(job, 4, BUDGET, runner=answers)
    assert made.device_used_bytes == os.getpid()
    assert made.note.startswith("ran in this process, for the job cannot be handed to a child")

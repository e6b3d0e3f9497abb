"""Trials on a real card: the cap is hard, the figures are the driver's, and nothing stays behind."""

import os
from functools import partial

import pytest
import torch
from torch import nn

import vramfit
from vramfit.jobs.job import Job
from vramfit.measure.budget import read_budget
from vramfit.measure.device import local_device
from vramfit.measure.memory import CudaMemory
from vramfit.measure.trial import run_trial
from vramfit.measure.worker import measure_trial
from vramfit.records import Schedule, Verdict
from vramfit.units import GIB, MIB, MemoryLimits

pytestmark = pytest.mark.gpu


class Convolutions(nn.Sequential):
    """About 32 MiB an image at 256x256 in half precision, more in training."""

    def __init__(self):
        layers = [nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        for _ in range(4):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(64, 1, 1))


def batch(size):
    return torch.randn(size, 1, 256, 256), torch.randn(size, 1, 256, 256)


def mean_square(outputs, targets):
    return (outputs.float() - targets).square().mean()


def make_job():
    return Job(
        model=Convolutions,
        batch=batch,
        loss=mean_square,
        optimizer=partial(torch.optim.AdamW, lr=1e-4),
        ema_decay=0.99,
        name="convolutions",
    )


def test_the_card_reads_like_cuda():
    card = local_device()
    free, total = torch.cuda.mem_get_info()
    assert card.name
    assert card.total_bytes >= total
    assert abs(card.free_bytes - free) < GIB


def test_a_trial_in_this_process_under_a_cap():
    card = local_device()
    budget = read_budget(card, MemoryLimits.parse(vram="4GB"))
    before = torch.get_rng_state(), torch.cuda.get_rng_state(), torch.backends.cudnn.benchmark
    made = run_trial(make_job(), 4, budget, CudaMemory(card), last_batch=3)
    assert made.verdict is Verdict.FITS, made.note
    assert made.peak_allocated_bytes <= made.peak_reserved_bytes <= budget.budget_bytes
    assert 50 * MIB < made.context_bytes < 2 * GIB
    assert made.emulated
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], torch.cuda.get_rng_state())
    assert before[2] == torch.backends.cudnn.benchmark
    assert torch.cuda.memory_allocated() < 64 * MIB


def test_the_cap_is_hard_and_memory_comes_back():
    card = local_device()
    memory = CudaMemory(card)
    made = run_trial(make_job(), 4096, read_budget(card, MemoryLimits.parse(vram="2GB")), memory)
    assert made.verdict is Verdict.OOM
    assert made.peak_reserved_bytes <= 2 * GIB
    assert torch.cuda.memory_allocated() < 64 * MIB
    torch.empty(3 * GIB, dtype=torch.uint8, device="cuda")


def test_a_child_holds_the_memory_and_the_parent_does_not():
    card = local_device()
    torch.cuda.empty_cache()
    before = card.free_bytes
    made = measure_trial(make_job, 4, read_budget(card, MemoryLimits.parse(vram="4GB")))
    assert card.free_bytes > before - 64 * MIB
    assert made.verdict is Verdict.FITS, made.note
    assert made.note == ""
    assert made.step_time_s < 5


def test_another_process_on_the_card_is_seen():
    others = [process for process in local_device().processes if process.pid != os.getpid()]
    budget = read_budget(local_device())
    assert budget.other_processes_bytes >= sum(process.used_bytes or 0 for process in others) * 0.5


def test_fit_on_a_real_card_and_its_answer_trains():
    profile = vramfit.fit(make_job, vram="3GB", objective="largest", schedule=Schedule(images=200, epochs=1))
    assert profile.source == "measured"
    chosen = profile.trial(profile.plan.micro_batch)
    assert chosen.verdict is Verdict.FITS
    assert chosen.device_used_bytes <= 3 * GIB
    above = profile.trial(profile.plan.micro_batch + 1)
    assert above is None or above.verdict is not Verdict.FITS
    assert sum(trial.verdict is Verdict.OOM for trial in profile.trials) <= 2

import copy
import pickle
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit.errors import UsageError
from vramfit.jobs.job import Job, job_key
from vramfit.jobs.levers.apply import apply_to_allocator, apply_to_network, settled
from vramfit.jobs.levers.fused_optimizer import Fused
from vramfit.jobs.levers.text import parse_levers
from vramfit.jobs.step import Step


def network():
    torch.manual_seed(3)
    first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(4), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1))


def samples(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.randn(count, 2, 16, 16, generator=generator)


def make_job(levers="none", **changes):
    job = Job(
        model=network,
        batch=samples,
        loss=F.mse_loss,
        optimizer=partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, betas=(0.8, 0.9)),
        amp=None,
        levers=parse_levers(levers),
    )
    return replace(job, **changes)


def state_after(job, steps=5):
    step = Step(job, "cpu")
    losses = [step.train(samples(4), 2) for _ in range(steps)]
    return {"loss": losses, "state": step.model.state_dict(), "judged": step.evaluation_model.state_dict()}


@pytest.mark.parametrize("levers", ["expandable_segments", "half_upsample", "ema_on_host"])
def test_levers_that_must_change_nothing_on_a_cpu(levers):
    plain, levered = make_job(ema_decay=0.9), make_job(levers, ema_decay=0.9)
    torch.testing.assert_close(state_after(levered), state_after(plain), rtol=0, atol=0)


@pytest.mark.parametrize("levers", ["channels_last", "fused_optimizer", "fused_optimizer,channels_last"])
def test_levers_with_other_kernels_agree_to_rounding(levers):
    torch.testing.assert_close(state_after(make_job(levers)), state_after(make_job()), rtol=1e-6, atol=1e-6)


def test_a_lever_overrules_the_setting_of_the_job():
    job = settled(make_job("amp=bf16,channels_last=on,fused_optimizer"))
    assert (job.amp, job.channels_last) == ("bf16", True)
    assert settled(make_job("amp=off,channels_last=off", amp="fp16", channels_last=True)).amp is None
    assert settled(job) == replace(job, optimizer=settled(job).optimizer)


def test_no_lever_changes_no_setting():
    job = make_job(amp="bf16", channels_last=True)
    assert settled(job) == job


def test_levers_are_part_of_what_a_profile_is_valid_for():
    assert job_key(make_job("half_upsample")).fingerprint != job_key(make_job()).fingerprint


def test_the_fused_optimizer_keeps_every_setting_and_pickles():
    build = Fused(partial(torch.optim.AdamW, lr=0.01, betas=(0.8, 0.9)))
    weight, bias = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    groups = [{"params": [weight], "weight_decay": 0.3}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = pickle.loads(pickle.dumps(build))(groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert all(group["fused"] and group["betas"] == (0.8, 0.9) for group in optimizer.param_groups)
    assert optimizer._step_supports_amp_scaling, "the scaler's verdict must stay on the card"


def test_an_optimizer_without_a_fused_form_is_refused():
    with pytest.raises(UsageError, match="RMSprop has no fused form"):
        Step(make_job("fused_optimizer", optimizer=partial(torch.optim.RMSprop, lr=0.1)), "cpu")


def test_half_upsampling_runs_outside_autocast(monkeypatch):
    seen = []
    model = network()
    apply_to_network(model, parse_levers("half_upsample"))
    model = copy.deepcopy(model)

    def forward(self, value):
        seen.append((self is model[2], torch.is_autocast_enabled("cpu"), value.dtype))
        return value

    monkeypatch.setattr(nn.Upsample, "forward", forward)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(samples(2)[0])
    assert seen == [(True, False, torch.bfloat16)]


def test_the_average_goes_home_after_it_was_judged():
    step = Step(make_job("ema_on_host", ema_decay=0.9), "cpu")
    moves = []
    original = step.average.model.to
    step.average.model.to = lambda device: moves.append(device) or original(device)
    step.train(samples(4), 4)
    step.validate(samples(4))
    assert moves == [torch.device("cpu"), torch.device("cpu")]


@pytest.mark.skipif(sys.platform == "win32", reason="the allocator knows no expandable segments there")
def test_expandable_segments_leave_the_settings_of_the_environment(monkeypatch):
    said = []
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", said.append)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:128,expandable_segments:False")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    wanted = parse_levers("expandable_segments")
    apply_to_allocator(wanted, torch.device("cuda"))
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    apply_to_allocator(wanted, torch.device("cuda"))
    apply_to_allocator(wanted, torch.device("cpu"))
    apply_to_allocator((), torch.device("cuda"))
    assert said == ["max_split_size_mb:128,expandable_segments:True", "expandable_segments:True"]

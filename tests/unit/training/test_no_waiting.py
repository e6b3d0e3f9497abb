"""A step never waits for the card: it reads nothing back, and hands nothing over in a way that must finish first."""

from dataclasses import replace
from functools import partial

import pytest
import small_runs as small
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vramfit.jobs.levers.text import parse_levers
from vramfit.jobs.step import Precision, Step
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.training.monitors import LossWatch

# Operations whose result, or the shape of it, the host needs before it can go on.
READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"}


class Waits(TorchDispatchMode):
    """Notes every operation that would make the host wait for a card."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen += [name] if name in READS else []
        return func(*args, **(kwargs or {}))


class Handed(TorchFunctionMode):
    """Notes every tensor that is made of Python numbers on a device: its copy is waited for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor) and "device" in (kwargs or {}):
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


def waits(step, batch, steps=2):
    with Waits() as waited, Handed() as handed:
        for _ in range(steps):
            step.train(batch, 1)
    return [*waited.seen, *handed.seen]


def scaled(job):
    """The job with a scaler that works, as on a card."""
    return Step(job, "cpu", precision=Precision(None, torch.amp.GradScaler("cpu", enabled=True)))


def test_the_landmark_step_waits_for_nothing():
    options = LandmarkJobOptions(
        model="hrnet_w18_small",
        image_size=(64, 64),
        landmarks=2,
        landmark_weights=(1.0, 2.0),
        clip_norm=1.0,
        ema_decay=0.9,
        levers=parse_levers("recompute=selective"),
    )
    job = landmark_job(options)
    assert waits(scaled(job), job.batch(2)) == []


@pytest.mark.parametrize(("levers", "expected"), [("none", ["_local_scalar_dense"] * 2), ("fused_optimizer", [])])
def test_only_the_scaler_of_an_optimizer_that_is_not_fused_asks_the_card_whether_to_step(levers, expected):
    job = small.job(optimizer=partial(torch.optim.SGD, lr=0.05, foreach=True), clip_norm=1.0, ema_decay=0.9)
    assert waits(scaled(replace(job, levers=parse_levers(levers))), small.batch(4)) == expected


def test_a_reading_step_would_be_seen():
    def reading(outputs, targets):
        loss = small.squared_error(outputs, targets)
        return loss if loss.item() < 1e9 else loss * torch.tensor(0.0, device=loss.device)

    assert waits(Step(small.job(loss=reading), "cpu"), small.batch(2), steps=1) == ["_local_scalar_dense"] * 2


def test_a_loss_is_read_one_step_late():
    watch, first, second = LossWatch(), torch.tensor(1.0), torch.tensor(2.0)
    watch.add(first, 4, (1, 1))
    assert watch.last is None
    watch.add(second, 4, (1, 2))
    assert watch.last == 1.0
    watch.settle()
    assert watch.last == 2.0


def test_the_loop_reads_nothing_but_losses_while_it_steps(tmp_path, monkeypatch):
    seen = []
    loop = small.loop(small.task(samples=12), tmp_path, epochs=1)
    train = loop.recovery.train

    def watched(*args):
        with Waits() as waited:
            loss = train(*args)
        seen.append(waited.seen)
        return loss

    monkeypatch.setattr(loop.recovery, "train", watched)
    loop.run()
    assert seen == [[], [], []]

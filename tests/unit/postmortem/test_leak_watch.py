"""The leak watch: what grows is told once, with its line; what a healthy run keeps is not."""

import os
import sys
from collections import deque

import numpy as np
import pytest
import small_runs as small
import torch
from scripted_recording import ScriptedRecording
from torch import nn
from torch.nn import functional as F

from vramfit.postmortem.growth import Checks
from vramfit.postmortem.leak_watch import CudaCard, LeakWatch, piled_up
from vramfit.postmortem.process_figures import ResidentMemory, open_files, usual_file
from vramfit.postmortem.rising import RisingLine
from vramfit.training import loop
from vramfit.training.listeners import Listener

SECONDS_A_STEP = 100.0  # enough for every look


class Cached(torch.utils.data.Dataset):
    """Keeps what it has read."""

    def __init__(self):
        self.kept = {}

    def __getitem__(self, index):
        return self.kept.setdefault(index, torch.zeros(20_000))


class Meter:
    """An object that keeps what it is given, held by nothing but a dict."""

    def __init__(self):
        self.readings = []

    def update(self, value):
        self.readings.append(value)


class Trainer:
    """A loop of steps; `keep` is what each of them leaves behind."""

    def __init__(self, steps=80):
        self.model = nn.Linear(16, 4)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.steps = steps
        self.history = []
        self.cache = {}
        self.window = deque(maxlen=4096)
        self.step = 0
        self.total = 0
        self.data = Cached()
        self.meters = {"loss": Meter()}

    def run(self, keep, card=None):
        told, seconds = [], iter(range(10_000))
        self.watch = watch = LeakWatch(told.append, card, clock=lambda: SECONDS_A_STEP * next(seconds))
        for step in range(self.steps):
            self.step = step
            loss = F.mse_loss(self.model(torch.ones(8, 16)), torch.zeros(8, 4))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            keep(self, loss)
            watch.after_step()
        return told


def append_loss(trainer, loss):
    trainer.history.append(loss)


def nested(trainer, loss):
    trainer.history.append({"loss": loss, "step": trainer.step})


def keeper():
    kept = []

    def keep(trainer, loss):
        kept.append(loss)

    return keep


def running_sum(trainer, loss):
    trainer.total += loss


def cache_by_step(trainer, loss):
    trainer.cache[trainer.step] = torch.zeros(400_000)


def arrays(trainer, loss):
    trainer.history.append((trainer.step, np.zeros(400_000)))


def meter(trainer, loss):
    trainer.meters["loss"].update(loss)


def every_second_step(trainer, loss):
    if trainer.step % 2:
        trainer.history.append(loss)


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (append_loss, "trainer.history.append(loss) at test_leak_watch.py:"),
        (nested, "keeps the graph of every step"),
        (running_sum, "trainer.total += loss at test_leak_watch.py:"),
        (cache_by_step, "keeps 2 MiB of every step"),
        (arrays, "keeps 3 MiB of every step"),
        (meter, "self.readings.append(value) at"),
        (every_second_step, "keeps the graph of every step: use .item() or .detach()"),
    ],
)
def test_what_grows_is_told_once_with_its_line(keep, said):
    (sentence,) = Trainer().run(keep)
    assert said in sentence
    assert "at test_leak_watch.py:" in sentence


def test_the_watch_s_own_bookkeeping_is_no_holder():
    (sentence,) = Trainer(160).run(keeper())
    assert "growth.py" not in sentence
    assert "keeps the graph of every step" in sentence


def nothing(trainer, loss):
    pass


def numbers(trainer, loss):
    trainer.history.append(loss.item())
    trainer.total += loss.item()


def records(trainer, loss):
    trainer.history.append({"step": trainer.step, "loss": loss.item(), "rate": 0.1})


def bounded(trainer, loss):
    trainer.window.append(loss.detach().clone().expand(20_000).clone())


def cleared(trainer, loss):
    trainer.history.append(loss)
    if trainer.step % 5 == 4:
        trainer.history.clear()


def last_loss(trainer, loss):
    trainer.total = loss


def smoothed(trainer, loss):
    trainer.total = 0.9 * trainer.total + 0.1 * loss.detach()


def cached_data(trainer, loss):
    trainer.data[trainer.step]


def outputs_of_an_epoch(trainer, loss):
    trainer.history.append(torch.zeros(20_000))
    if trainer.step % 40 == 39:
        trainer.history.clear()


def cached_by_shape(trainer, loss):
    trainer.cache.setdefault(trainer.step // 3, torch.zeros(20_000))


def losses_of_an_epoch(trainer, loss):
    trainer.history.append(loss)
    if trainer.step % 20 == 19:
        trainer.history.clear()


def one_an_epoch(trainer, loss):
    if trainer.step % 60 == 0:
        trainer.history.append(loss)


@pytest.mark.parametrize(
    "keep",
    [
        nothing,
        numbers,
        records,
        bounded,
        cleared,
        last_loss,
        smoothed,
        cached_data,
        outputs_of_an_epoch,
        cached_by_shape,
        losses_of_an_epoch,
        one_an_epoch,
    ],
)
def test_what_a_healthy_run_keeps_is_not_told(keep):
    assert Trainer().run(keep) == []


@pytest.mark.skipif(open_files() is None, reason="the system does not list open files")
def test_files_that_stay_open_are_told():
    files = []

    def keep(trainer, loss):
        files.append(os.open(os.devnull, os.O_RDONLY))

    trainer = Trainer(steps=16 * 4 * 9)
    try:
        told = trainer.run(keep)
    finally:
        for file in files:
            os.close(file)
    assert [sentence for sentence in told if sentence.startswith("Open files rise")]
    assert usual_file()


def test_resident_memory_is_that_of_this_process():
    memory = ResidentMemory()
    before = memory.read()
    if before is None:
        pytest.skip("the system does not tell")
    held = np.ones(40 << 20, dtype=np.uint8)
    assert memory.read() - before >= 0.9 * held.nbytes


@pytest.mark.parametrize(
    ("values", "rises"),
    [
        (range(100), True),
        ([5] * 100, False),
        ([*range(30), *[30] * 70], False),
        ([step % 7 for step in range(100)], False),
        ([step // 40 for step in range(100)], False),
        ([step + 3 * (step % 5) for step in range(200)], True),
    ],
)
def test_a_rising_line(values, rises):
    line = RisingLine(1)
    for step, value in enumerate(values):
        line.add(value, step)
    assert line.is_rising is rises


def test_a_slow_rise_shows_in_a_long_run():
    line = RisingLine(1)
    for step in range(8000):
        line.add(step // 100, step)
    assert line.is_rising
    assert line.each_step == pytest.approx(0.01, rel=0.2)


class RecordedCard:
    """A card that is a recording: what no Python object holds shows in its allocator alone."""

    def __init__(self, recording):
        self.recording = recording

    def allocated_bytes(self):
        return self.recording._allocator.allocated_bytes

    def growing_line(self):
        return piled_up(self.recording.snapshot())


def test_what_only_the_allocator_shows_is_found_by_its_history():
    kept = set()  # no name and no list: objects that C++ holds look like this to Python

    def keep(trainer, loss):
        kept.add(iter([torch.zeros(200_000)]))

    recording = ScriptedRecording()
    with recording:
        told = Trainer(steps=40).run(keep, RecordedCard(recording))
    (sentence,) = told
    assert sentence.startswith("Tensors pile up from step to step")
    assert "torch.zeros(200_000)" in sentence


class RisingCard:
    """A card that holds more after each step, and no line for it."""

    def __init__(self, trainer, each_step):
        self.trainer, self.each_step = trainer, each_step

    def allocated_bytes(self):
        return self.trainer.step * self.each_step

    def growing_line(self):
        return None


@pytest.mark.parametrize(("each_step", "told"), [(2 << 20, 1), (0, 0)])
def test_a_line_that_rises_is_looked_into_at_once(monkeypatch, each_step, told):
    monkeypatch.setattr(sys.modules[__name__], "SECONDS_A_STEP", 0.005)  # half a second of run in all
    # What a scan costs depends on all that the tests before it left in memory.
    monkeypatch.setattr("vramfit.postmortem.leak_watch._CREDIT_WHILE_RISING_S", 30.0)
    trainer = Trainer(steps=104)
    # No variable of a running function holds it: only a scan finds it.
    assert len(trainer.run(meter, RisingCard(trainer, each_step))) == told


def test_a_list_that_an_epoch_empties_is_none_that_grows_however_it_is_looked_at():
    checks, suspects, losses = Checks(), {}, []
    for step in range(1, 400):
        losses.append(torch.ones((), requires_grad=True) * 2)
        checks.follow(suspects)
        if step % 24 == 0:  # the lengths are 4, 8, 12, 16 at these steps
            assert checks.take(step, suspects, sys._getframe()) == []
        if step % 20 == 0:
            losses.clear()


@pytest.mark.parametrize(
    ("keep", "steps", "said"),
    [
        (nothing, 80, "Nothing was seen to grow from step to step, over 80 steps."),
        (nothing, 20, "too short to tell whether something grows: 20 steps"),
        (append_loss, 80, None),
    ],
)
def test_at_the_end_it_is_said_that_nothing_grew(keep, steps, said):
    trainer = Trainer(steps)
    trainer.run(keep)
    words = trainer.watch.closing_words()
    assert (words is None) if said is None else (said in words)


def test_a_history_that_someone_else_records_is_left_alone(monkeypatch):
    recorded = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **told: recorded.append(told))
    monkeypatch.setattr(torch._C, "_cuda_isHistoryEnabled", lambda: True, raising=False)
    assert CudaCard(torch.device("cpu")).growing_line() == ""
    assert recorded == []
    monkeypatch.setattr(torch._C, "_cuda_isHistoryEnabled", lambda: False)
    assert CudaCard(torch.device("cpu")).growing_line() is None
    assert len(recorded) == 1


def test_training_tells_of_leaks_as_notes(tmp_path, monkeypatch):
    class Eager(LeakWatch):
        def after_step(self):
            self._tell("something grows.")

    class Notes(Listener):
        def on_note(self, text):
            notes.append(text)

    monkeypatch.setattr(loop, "LeakWatch", Eager)
    notes = []
    small.loop(small.task(), tmp_path, listeners=[Notes()], epochs=1).run()
    assert set(notes) == {"something grows."}

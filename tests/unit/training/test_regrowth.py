"""Growing back: larger micro-batches again between epochs, and nothing is learned otherwise than without."""

import math
from types import SimpleNamespace

import pytest
import small_runs as small
import torch

from vramfit.measure.memory import MemoryFigures
from vramfit.records import Budget
from vramfit.training import checkpoint
from vramfit.training import monitors as watch
from vramfit.training.listeners import Listener
from vramfit.training.monitors import MemoryWatch
from vramfit.units import GIB


class Ear(Listener):
    def __init__(self, kill_at=None):
        self.records, self.growths, self.kill_at = [], [], kill_at

    def on_progress(self, progress):
        if (progress.epoch, progress.step) == self.kill_at:
            raise InterruptedError

    def on_epoch(self, record):
        self.records.append(record)

    def on_grow_back(self, growth):
        self.growths.append((growth.epoch, growth.micro_batch_before, growth.micro_batch_after))


def hold(loop, most):
    """Let the loop's card hold `most(epoch)` samples at once, epochs from 1."""
    whole = loop.step.backward

    def backward(batch, micro_batch):
        if micro_batch > most(loop.recovery.position[0]):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(batch, micro_batch)

    loop.step.backward = backward
    return loop


def crowded_at_first(epoch):
    return 1 if epoch == 1 else math.inf


def made(folder, ear, most, epochs=6, **changes):
    options = {"grow_back": True, "epochs": epochs, **changes}
    return hold(small.loop(small.task(samples=12), folder, listeners=[ear], **options), most)


def sizes(ear):
    return [record.micro_batch for record in ear.records]


def test_it_grows_one_step_at_a_time_and_learns_the_same(tmp_path):
    ear = Ear()
    loop = made(tmp_path / "grown", ear, crowded_at_first)
    loop.run()
    assert sizes(ear) == [1, 1, 2, 4, 4, 4]
    assert ear.growths == [(3, 1, 2), (4, 2, 4)]
    assert [growth.epoch for growth in loop.state.grow_backs] == [3, 4]
    clean = small.loop(small.task(samples=12), tmp_path / "clean", epochs=6)
    clean.run()
    assert small.difference(small.weights(loop.step), small.weights(clean.step)) < 1e-9
    asked = loop.task.training.asked
    assert sorted(asked) == [(epoch, sample) for epoch in range(6) for sample in range(12)]


def test_it_stays_small_where_growing_was_not_asked_for(tmp_path):
    ear = Ear()
    made(tmp_path, ear, crowded_at_first, grow_back=False).run()
    assert sizes(ear) == [1] * 6
    assert ear.growths == []


def test_a_failed_try_is_an_oom_like_any_other_and_the_next_waits_twice_as_long(tmp_path):
    ear = Ear()
    loop = made(tmp_path / "tight", ear, lambda _: 2, epochs=11)
    loop.run()
    assert [epoch for epoch, _, _ in ear.growths] == [3, 6, 11]
    assert [len(record.oom_events) for record in ear.records] == [1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1]
    assert set(sizes(ear)) == {2}
    clean = small.loop(small.task(samples=12), tmp_path / "clean", epochs=11)
    clean.run()
    assert small.difference(small.weights(loop.step), small.weights(clean.step)) < 1e-9


@pytest.mark.parametrize("at", [(2, 1), (3, 2), (6, 3), (8, 1)])
def test_a_killed_run_grows_when_the_whole_one_does(tmp_path, at):
    def most(epoch):
        return 2 if epoch < 8 else 4

    whole = Ear()
    uncut = made(tmp_path / "whole", whole, most, epochs=12)
    uncut.run()
    with pytest.raises(InterruptedError):
        made(tmp_path / "cut", Ear(kill_at=at), most, epochs=12, save_every_steps=1).run()
    ear = Ear()
    resumed = made(tmp_path / "cut", ear, most, epochs=12)
    resumed.resume(checkpoint.load(tmp_path / "cut" / checkpoint.LATEST))
    resumed.run()
    assert sizes(ear) == sizes(whole)[-len(ear.records) :]
    assert [len(r.oom_events) for r in ear.records] == [len(r.oom_events) for r in whole.records][-len(ear.records) :]
    assert resumed.state.grow_backs == uncut.state.grow_backs
    assert small.difference(small.weights(resumed.step), small.weights(uncut.step)) == 0


def test_a_resumed_run_grows_no_further_than_its_new_plan_allows(tmp_path):
    made(tmp_path, Ear(), crowded_at_first, epochs=1).run()
    ear = Ear()
    resumed = made(tmp_path, ear, crowded_at_first, micro_batch=3)
    resumed.resume(checkpoint.load(tmp_path / checkpoint.LATEST))
    resumed.run()
    assert sizes(ear) == [1, 2, 3, 3, 3]


class CardMemory:
    """Takes 1 GiB at rest, 0.5 GiB of context and 1 GiB a sample, of which `samples` were in the last epoch's steps."""

    def __init__(self, samples):
        self.device, self.samples = torch.device("cuda", 0), samples

    def start(self, budget): ...

    def figures(self):
        return MemoryFigures((1 + self.samples) * GIB, (1 + self.samples) * GIB, GIB // 2, 0)


@pytest.fixture
def watched(monkeypatch):
    """A run's watch over a card of 8 GiB on which so many samples are trained at once."""

    def watched(samples, *, room_gib, watermark=0.95):
        memory = CardMemory(samples)
        monkeypatch.setattr(watch, "local_device", lambda _: SimpleNamespace())
        monkeypatch.setattr(watch, "CudaMemory", lambda _: memory)
        monkeypatch.setattr(watch, "room_bytes", lambda _: round(room_gib * GIB))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: GIB)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
        return MemoryWatch(memory.device, Budget(total_bytes=8 * GIB), watermark)

    return watched


def test_growing_must_leave_the_card_below_the_watermark(watched):
    # Twice three samples are three GiB more; 5 % of the budget, 0.4 GiB, stay free.
    assert watched(3, room_gib=3.5).allows(2)
    assert not watched(3, room_gib=3.3).allows(2)
    assert watched(3, room_gib=1.5).allows(4 / 3)
    assert watched(3, room_gib=3.3, watermark=1.0).allows(2)


def test_what_the_card_does_not_hold_is_not_tried(watched, tmp_path):
    ear = Ear()
    one = small.task(samples=12)
    loop = small.loop(one, tmp_path, listeners=[ear], epochs=4, grow_back=True, memory=watched(3, room_gib=1.0))
    hold(loop, lambda epoch: 2 if epoch == 1 else math.inf).run()
    assert sizes(ear) == [2] * 4


def test_one_warning_comes_before_the_limit(watched):
    near = watched(7, room_gib=0, watermark=0.95)
    assert near.warning() is None  # nothing was read yet
    near.figures()
    words = near.warning()
    assert words == (
        "8.50 GiB of the budget of 8.00 GiB were in use: little is left; an OOM would be recovered from, with "
        "smaller micro-batches."
    )
    assert near.warning() is None
    far = watched(6, room_gib=0)
    far.figures()
    assert far.warning() is None


def test_the_warning_is_told_once_in_a_run(watched, tmp_path):
    class Notes(Listener):
        def __init__(self):
            self.heard = []

        def on_note(self, text):
            self.heard.append(text)

    ear = Notes()
    small.loop(small.task(), tmp_path, listeners=[ear], memory=watched(7, room_gib=0)).run()
    assert [text.partition(" of the")[0] for text in ear.heard] == ["8.50 GiB"]

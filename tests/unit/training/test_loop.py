"""The loop: every sample once an epoch, and a resumed run that is the uninterrupted one."""

import math

import pytest
import small_runs as small
import torch

from vramfit.errors import DataError, NotFinite
from vramfit.training import checkpoint
from vramfit.training.listeners import Listener
from vramfit.training.loop import Loop

RICH = {"model": small.network_with_memory, "optimizer": small.adamw, "ema_decay": 0.9, "clip_norm": 1.0}


class Killed(Exception):
    """Stands for a SIGKILL: nothing of the run's own gets to clean up."""


class KillAt(Listener):
    def __init__(self, epoch, step):
        self.at = (epoch, step)

    def on_progress(self, progress):
        if (progress.epoch, progress.step) == self.at:
            raise Killed


class Ear(Listener):
    def __init__(self):
        self.records, self.rates = [], []

    def on_progress(self, progress):
        self.rates.append(progress.learning_rate)

    def on_epoch(self, record):
        self.records.append(record)


def everything(loop):
    state = loop.step.state_dict()
    return [*small.weights(loop.step), *state["average"].values(), *_moments(loop)]


def _moments(loop):
    return [value for mine in loop.step.optimizer.state.values() for value in mine.values()]


@pytest.mark.parametrize("at", [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3)])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, at):
    whole_ear, ear = Ear(), Ear()
    whole = small.loop(small.task(**RICH), tmp_path / "whole", listeners=[whole_ear])
    whole.run()
    with pytest.raises(Killed):
        small.loop(small.task(**RICH), tmp_path / "cut", listeners=[KillAt(*at)], save_every_steps=1).run()
    resumed = small.loop(small.task(**RICH), tmp_path / "cut", listeners=[ear], seed=99)
    resumed.options = whole.options.__class__(**{**whole.options.__dict__, "save_dir": tmp_path / "cut"})
    resumed.resume(checkpoint.load(tmp_path / "cut" / checkpoint.LATEST))
    resumed.run()
    assert small.difference(everything(resumed), everything(whole)) == 0
    mine, theirs = ear.records, whole_ear.records
    assert [(r.epoch, r.loss, r.metrics) for r in mine] == [(r.epoch, r.loss, r.metrics) for r in theirs][-len(mine) :]


def test_every_sample_once_an_epoch(tmp_path):
    one = small.task(samples=11)
    small.loop(one, tmp_path).run()
    assert sorted(one.training.asked) == [(epoch, index) for epoch in range(3) for index in range(11)]
    orders = [[index for of, index in one.training.asked if of == epoch] for epoch in range(3)]
    assert orders[0] != orders[1]


def test_the_rate_warms_up_by_the_step_and_ends_at_its_least(tmp_path):
    ear = Ear()
    small.loop(small.task(samples=12), tmp_path, listeners=[ear], warmup_epochs=1).run()
    assert ear.rates[:3] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05])
    assert ear.rates[-1] == pytest.approx(0)
    assert all(later < earlier for earlier, later in zip(ear.rates[3:], ear.rates[4:], strict=False))


def test_leaves_the_files_that_the_guide_names(tmp_path):
    small.loop(small.task(), tmp_path, epochs=5, save_every=2, keep=2).run()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "checkpoint_best.pth",
        "checkpoint_epoch_004.pth",
        "checkpoint_epoch_005.pth",
        "checkpoint_latest.pth",
    ]


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path):
    one = small.task()
    fetch = one.training.fetch

    def poisoned(epoch, indices):
        inputs, targets = fetch(epoch, indices)
        return (inputs * math.nan if epoch == 1 else inputs), targets

    one.training.fetch = poisoned
    with pytest.raises(NotFinite, match="epoch 2, step 1"):
        small.loop(one, tmp_path, save_every_steps=1).run()
    content = checkpoint.load(tmp_path / checkpoint.LATEST)
    assert content["position"]["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in content["model"].values())


def test_another_effective_batch_goes_on_from_the_same_sample(tmp_path):
    one = small.task(samples=12)
    with pytest.raises(Killed):
        small.loop(one, tmp_path, listeners=[KillAt(1, 2)], save_every_steps=1).run()
    one.training.asked.clear()
    resumed = small.loop(one, tmp_path, effective_batch=3, epochs=1)
    resumed.resume(checkpoint.load(tmp_path / checkpoint.LATEST))
    done = resumed.state.done
    resumed.run()
    assert len(one.training.asked) == 12 - done


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    small.loop(small.task(), tmp_path, epochs=1, config={"model": "small"}).run()
    content = checkpoint.load(tmp_path / checkpoint.BEST)
    other = torch.nn.Linear(3, 2)
    with pytest.raises(DataError, match=r"another model \(small; 'weight' is missing there and 2x3 here\)"):
        checkpoint.require_same_model(content, other, "c.pth")


@pytest.mark.parametrize("damage", ["half", "pickle", "foreign"])
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path, damage):
    path = tmp_path / "c.pth"
    small.loop(small.task(), tmp_path, epochs=1).run()
    whole = (tmp_path / checkpoint.BEST).read_bytes()
    if damage == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "pickle":
        torch.save({"model": Killed()}, path)
    else:
        torch.save({"model": {}}, path)
    with pytest.raises(DataError, match=r"c\.pth: (no|not a) checkpoint of `vramfit train`"):
        checkpoint.load(path)


def test_an_oom_in_training_is_recorded_and_changes_nothing(tmp_path):
    ear = Ear()
    clean = small.loop(small.task(), tmp_path / "clean")
    clean.run()
    loop: Loop = small.loop(small.task(), tmp_path / "oom", listeners=[ear])
    whole, calls = loop.step.backward, []

    def backward(batch, micro_batch):
        calls.append(micro_batch)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(batch, micro_batch)

    loop.step.backward = backward
    loop.run()
    assert small.difference(small.weights(loop.step), small.weights(clean.step)) < 1e-9
    assert [len(record.oom_events) for record in ear.records] == [1, 0, 0]
    assert ear.records[-1].micro_batch == 2
    assert checkpoint.load(tmp_path / "oom" / checkpoint.LATEST)["micro_batch"] == 2


def test_a_listener_sees_the_first_validation_samples_of_every_epoch(tmp_path):
    class Looks(Listener):
        def __init__(self, examples):
            self.examples, self.seen = examples, []

        def on_examples(self, epoch, examples):
            self.seen.append((epoch, [index for index, _ in examples]))

    three, one, none = Looks(3), Looks(1), Looks(0)
    small.loop(small.task(), tmp_path, listeners=[three, one, none], micro_batch=2, epochs=2).run()
    assert three.seen == [(1, [0, 1, 2]), (2, [0, 1, 2])]
    assert one.seen == [(1, [0]), (2, [0])]
    assert none.seen == [(1, []), (2, [])]

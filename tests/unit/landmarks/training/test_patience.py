"""Stopping early, and landmarks that count for more: both survive a kill, for both are in the checkpoint."""

import numpy as np
import pytest
import small_runs as small

from vramfit.training import checkpoint
from vramfit.training.listeners import Listener
from vramfit.training.loss_weights import loss_factors, running_errors


class Ear(Listener):
    def __init__(self):
        self.epochs, self.notes = [], []

    def on_epoch(self, record):
        self.epochs.append(record.epoch)

    def on_note(self, text):
        self.notes.append(text)


def task_that_scores(figures, **changes):
    """A task whose epochs are judged by these figures, whatever was learned."""
    one, left = small.task(**changes), iter(figures)
    one.judge = lambda rows: small.judged(next(left))
    return one


def test_a_run_stops_once_patience_is_at_an_end(tmp_path):
    ear = Ear()
    one = task_that_scores([5, 3, 4, 3, 6, 1])
    loop = small.loop(one, tmp_path, listeners=[ear], epochs=9, patience=3)
    loop.run()
    assert ear.epochs == [1, 2, 3, 4, 5]
    assert "Stopped after epoch 5: no epoch was better than 2." in ear.notes[-1]
    assert (tmp_path / "checkpoint_epoch_005.pth").is_file()
    assert loop.is_over


def test_a_resumed_run_waits_no_longer_than_a_whole_one(tmp_path):
    ear = Ear()
    small.loop(task_that_scores([5, 3, 4, 4]), tmp_path, epochs=4, patience=4).run()
    resumed = small.loop(task_that_scores([6, 1]), tmp_path, listeners=[ear], epochs=9, patience=3)
    resumed.resume(checkpoint.load(tmp_path / checkpoint.LATEST))
    resumed.run()
    assert ear.epochs == [5]


def test_a_figure_that_grows_better_is_waited_for(tmp_path):
    ear = Ear()
    small.loop(task_that_scores([5, 4, 3, 2]), tmp_path, listeners=[ear], epochs=4, patience=1).run()
    assert ear.epochs == [1, 2, 3, 4]
    assert ear.notes == []


def test_running_errors_follow_the_formula_and_leave_out_what_nobody_marked():
    first = running_errors([], np.array([[1.0, 4.0, np.nan], [3.0, np.nan, np.nan]]))
    assert first == pytest.approx([2, 4, np.nan], nan_ok=True)
    assert running_errors(first, np.array([[4.0, np.nan, 1.0]])) == pytest.approx([0.7 * 2 + 0.3 * 4, 4, 1])


def test_factors_follow_the_formula():
    assert loss_factors([], 1.0) == []
    assert loss_factors([1, 2], 0.0) == []
    assert loss_factors([1, 3], 1.0) == pytest.approx([0.5, 1.5])
    assert loss_factors([1, 3], 0.5) == pytest.approx(np.sqrt([0.5, 1.5]) / np.sqrt([0.5, 1.5]).mean())
    assert max(loss_factors([1, 1, 1, 1, 100], 2.0)) == pytest.approx(3 / (3 + 4 / 3) * 5)


def test_a_landmark_without_an_error_is_neither_hard_nor_easy():
    assert loss_factors([1, np.nan, 3], 1.0) == pytest.approx([0.5, 1, 1.5])
    assert loss_factors([np.nan, np.nan], 1.0) == []


class Killed(Exception):
    pass


class KillAt(Listener):
    def on_progress(self, progress):
        if (progress.epoch, progress.step) == (2, 2):
            raise Killed


def weighing_task():
    """Its first figure is hard: the loss of the next epoch is another."""
    one = small.task()
    one.rows = lambda outputs, indices: np.array([[3.0, 1.0]] * len(list(indices)))
    return one


def test_weights_of_landmarks_come_back_with_the_checkpoint(tmp_path):
    whole = small.loop(weighing_task(), tmp_path / "whole", difficulty=1.0)
    whole.run()
    plain = small.loop(weighing_task(), tmp_path / "plain")
    plain.run()
    assert small.difference(small.weights(whole.step), small.weights(plain.step)) > 1e-3
    assert whole.state.running_errors == [3, 1]
    with pytest.raises(Killed):
        small.loop(weighing_task(), tmp_path / "cut", listeners=[KillAt()], difficulty=1.0, save_every_steps=1).run()
    resumed = small.loop(weighing_task(), tmp_path / "cut", difficulty=1.0)
    resumed.resume(checkpoint.load(tmp_path / "cut" / checkpoint.LATEST))
    resumed.run()
    assert small.difference(small.weights(resumed.step), small.weights(whole.step)) == 0

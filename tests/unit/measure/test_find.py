import random

import numpy as np
import pytest
import torch
from scripted_card import FACES, ScriptedCard

import vramfit
from vramfit.measure import find
from vramfit.measure.find import find_batch_size
from vramfit.units import GIB, MIB


@pytest.fixture(autouse=True)
def no_cleaning(monkeypatch):
    """Collecting garbage takes most of a failure's time."""
    monkeypatch.setattr(find, "release_memory", lambda: None)


@pytest.mark.parametrize("start", [None, 1, 5, 7, 8, 100])
def test_any_start_leads_to_the_optimum(start):
    card = ScriptedCard()
    assert find_batch_size(card.step, start=start).batch_size == 7


def test_peaks_and_a_budget_need_few_trials_and_one_error():
    card = ScriptedCard(per_image_bytes=10 * MIB)
    budget = card.room_bytes
    result = find_batch_size(card.step, start=round(card.true_limit * 0.92), budget_bytes=budget)
    assert result.batch_size == card.true_limit
    assert len(result.trials) <= 5
    assert card.ooms == 1


def test_a_peak_above_the_budget_is_over_budget_without_an_error():
    result = find_batch_size(lambda n: n * GIB, budget_bytes=5 * GIB)
    assert result.batch_size == 5
    assert "exceeds the budget" in result.reason


def test_what_a_step_returns_is_ignored_without_a_budget():
    assert find_batch_size(lambda n: torch.tensor(0.5), maximum=16).batch_size == 16


def test_the_data_set_is_the_limit():
    card = ScriptedCard()
    result = find_batch_size(card.step, maximum=3)
    assert result.batch_size == 3
    assert result.reason == "batch 3: the largest allowed, and it fits."
    assert max(card.sizes) == 3


def test_without_any_limit_the_search_ends():
    result = find_batch_size(lambda n: None)
    assert result.batch_size == 65_536
    assert len(result.trials) < 25


def _raise_if(bad):
    if bad:
        raise FACES["torch"]()


def test_nothing_fits():
    card = ScriptedCard(fixed_bytes=8 * GIB)
    with pytest.raises(vramfit.NothingFits, match="Batch size 1 does not fit"):
        find_batch_size(card.step, start=64)
    with pytest.raises(vramfit.NothingFits, match="Batch size 9 does not fit"):
        find_batch_size(ScriptedCard().step, minimum=9)


def test_another_error_is_the_callers():
    def broken(size):
        raise KeyError("films")

    with pytest.raises(KeyError, match="films"):
        find_batch_size(broken)


def test_random_states_are_those_of_before():
    def step(size):
        random.random()
        np.random.rand()
        torch.rand(size)
        _raise_if(size > 5)

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    find_batch_size(step)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"minimum": 0}, {"minimum": 5, "maximum": 4}, {"start": 0}, {"budget_bytes": 0}, {"maximum": 0}),
        *({"multiple_of": 0}, {"max_trials": 0}, {"reserve_bytes": -1}),
    ],
)
def test_sizes_that_make_no_sense(wrong):
    with pytest.raises(vramfit.UsageError):
        find_batch_size(lambda n: None, **wrong)


@pytest.mark.parametrize(
    ("start", "limit"),
    [(128, 37), (128, 1), (128, 127), (528, 300), (1024, 37), (4096, 50), (65536, 3), (None, 37), (None, 500)],
)
def test_a_start_far_above_costs_four_errors_at_most(start, limit):
    card = ScriptedCard(per_image_bytes=MIB, extra=lambda n: 8 * GIB * (n > limit))
    result = find_batch_size(card.step, start=start)
    assert result.batch_size == limit
    assert card.ooms <= 4
    assert len(result.trials) <= 41


@pytest.mark.parametrize("start", [None, 5, 8, 30, 100])
def test_one_spurious_failure_changes_no_answer(start):
    for step in range(40):
        card = ScriptedCard(ooms_at=(step,))
        assert find_batch_size(card.step, start=start).batch_size == 7, step


def test_a_spurious_failure_of_the_smallest_is_not_the_end():
    assert find_batch_size(ScriptedCard(ooms_at=(0,)).step, minimum=7).batch_size == 7


def test_multiples_alone_are_tried():
    card = ScriptedCard(per_image_bytes=100 * MIB)
    result = find_batch_size(card.step, start=50, minimum=3, multiple_of=8, maximum=100)
    assert card.true_limit == 75
    assert result.batch_size == 72
    assert all(size % 8 == 0 for size in card.sizes)
    assert result.reason == "batch 72: 80 runs out of memory."
    with pytest.raises(vramfit.UsageError, match="no multiple of 8 is between 3 and 7"):
        find_batch_size(card.step, minimum=3, maximum=7, multiple_of=8)


def test_trials_are_told_and_bounded():
    card, told = ScriptedCard(), []
    result = find_batch_size(card.step, max_trials=3, on_trial=told.append)
    assert tuple(told) == result.trials
    assert len(card.sizes) == 3
    assert result.batch_size == 4
    assert result.reason == "batch 4: the largest that fitted in 3 trials."
    with pytest.raises(vramfit.NothingFits, match="No batch size fits in 1 trials, the smallest of 45"):
        find_batch_size(card.step, start=50, max_trials=1)


def test_no_maximum_is_a_stated_bound():
    assert find_batch_size(lambda n: None).reason == "batch 65536: where a search without a maximum ends, and it fits."


def test_a_reserve_is_kept_from_the_budget_and_needs_one():
    assert find_batch_size(lambda n: n * GIB, budget_bytes=5 * GIB, reserve_bytes=2 * GIB).batch_size == 3
    with pytest.raises(vramfit.UsageError, match="reserve_bytes needs a CUDA card"):
        find_batch_size(lambda n: n * GIB, reserve_bytes=GIB)


def test_a_reserve_is_read_of_a_card_that_nothing_has_used_yet(monkeypatch):
    monkeypatch.setattr(find, "_has_cuda", lambda: True)
    monkeypatch.setattr(find, "_card_room_bytes", lambda: 5 * GIB)
    monkeypatch.setattr(find, "_forget_card_peak", lambda: None)
    sizes = []
    monkeypatch.setattr(find, "_card_peak_bytes", lambda: sizes[-1] * GIB)
    assert find_batch_size(sizes.append, reserve_bytes=2 * GIB).batch_size == 3


@pytest.mark.parametrize(("reserve", "expected", "ooms"), [(0, 759, 1), (100 * MIB, 749, 0)])
def test_a_card_is_read_where_there_is_one(monkeypatch, reserve, expected, ooms):
    """Not verified on a GPU: the card is scripted."""
    card = ScriptedCard(per_image_bytes=10 * MIB)
    monkeypatch.setattr(find, "_uses_cuda", lambda: True)
    monkeypatch.setattr(find, "_card_room_bytes", lambda: card.room_bytes)
    monkeypatch.setattr(find, "_forget_card_peak", lambda: None)
    monkeypatch.setattr(find, "_card_peak_bytes", lambda: card.peak_bytes)
    result = find_batch_size(lambda n: card.step(n) and None, start=700, reserve_bytes=reserve)
    assert card.true_limit == 759
    assert (result.batch_size, card.ooms) == (expected, ooms)


def test_an_error_raised_because_memory_ran_out_is_one():
    def step(size):
        try:
            _raise_if(size > 5)
        except torch.OutOfMemoryError as error:
            raise ValueError("step failed") from error

    assert find_batch_size(step, start=9).batch_size == 5

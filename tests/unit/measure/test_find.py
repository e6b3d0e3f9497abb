import random

import numpy as np
import pytest
import torch
from scripted_card import FACES, ScriptedCard

import vramfit
from vramfit.measure.find import find_batch_size
from vramfit.units import GIB, MIB


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
    "wrong", [{"minimum": 0}, {"minimum": 5, "maximum": 4}, {"start": 0}, {"budget_bytes": 0}, {"maximum": 0}]
)
def test_sizes_that_make_no_sense(wrong):
    with pytest.raises(vramfit.UsageError):
        find_batch_size(lambda n: None, **wrong)

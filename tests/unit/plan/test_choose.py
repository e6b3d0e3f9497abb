import pytest

from vramfit.errors import NothingFits, UsageError
from vramfit.plan.choose import (
    batch_norm_notes,
    choose_trial,
    divide_batch,
    learning_rate_offer,
    make_plan,
    reason_for,
)
from vramfit.records import Trial, Verdict
from vramfit.units import GIB


def trial(size, verdict=Verdict.FITS, step_time_s=None, used=None, band=None):
    return Trial(
        source="measured",
        micro_batch=size,
        verdict=verdict,
        budget_bytes=8 * GIB,
        step_time_s=step_time_s,
        device_used_bytes=used,
        device_used_band_bytes=band,
    )


def test_largest_takes_the_largest_that_fits():
    trials = [trial(4), trial(8), trial(9, Verdict.OOM)]
    assert choose_trial(trials, "largest").micro_batch == 8


def test_fastest_takes_the_smallest_within_two_percent_of_the_best():
    # 90, 99 and 100 images a second.
    trials = [trial(9, step_time_s=0.1), trial(99, step_time_s=1.0), trial(200, step_time_s=2.0)]
    assert choose_trial(trials, "fastest").micro_batch == 99
    assert choose_trial(trials, "fastest", accumulate=True).micro_batch == 200
    assert choose_trial(trials, "largest").micro_batch == 200


def test_bigger_is_slower_and_is_not_taken():
    trials = [trial(4, step_time_s=0.1), trial(8, step_time_s=0.4), trial(6, Verdict.SPILLED, step_time_s=0.01)]
    chosen = choose_trial(trials, "fastest")
    assert chosen.micro_batch == 4
    assert reason_for(chosen, trials, "fastest") == "batch 4: 8 fits too, but is no faster."


def test_fastest_without_times_is_the_largest():
    assert choose_trial([trial(4), trial(8)], "fastest").micro_batch == 8


def test_nothing_fits():
    with pytest.raises(NothingFits):
        choose_trial([trial(1, Verdict.OOM), trial(2, Verdict.RISKY)], "fastest")


@pytest.mark.parametrize(
    ("next_one", "said"),
    [
        (trial(7, Verdict.OOM), "batch 6: 7 runs out of memory."),
        (trial(7, Verdict.OVER_BUDGET, used=9 * GIB), "batch 6: 7 exceeds the budget by 1.00 GiB."),
        (
            trial(7, Verdict.RISKY, used=8 * GIB, band=(7 * GIB, 10 * GIB)),
            "batch 6: 7 may exceed the budget by 2.00 GiB.",
        ),
        (trial(7, Verdict.SPILLED), "batch 6: 7 spills into system memory."),
        (trial(7, Verdict.FAILED), "batch 6: 7 failed."),
    ],
)
def test_the_reason_names_the_next_batch(next_one, said):
    assert reason_for(trial(6), [trial(6), next_one], "largest") == said


def test_a_network_with_batch_norm_does_not_get_one_sample_where_more_are_as_fast():
    as_fast = [trial(1, step_time_s=0.1), trial(2, step_time_s=0.199), trial(3, step_time_s=0.3)]
    assert choose_trial(as_fast, "fastest").micro_batch == 1
    assert choose_trial(as_fast, "fastest", batch_norm=True).micro_batch == 2
    slower = [trial(1, step_time_s=0.1), trial(2, step_time_s=0.3)]
    assert choose_trial(slower, "fastest", batch_norm=True).micro_batch == 1


def test_the_reason_at_the_cap():
    assert reason_for(trial(6), [trial(6)], "largest") == "batch 6 fits, as requested."
    assert reason_for(trial(6), [trial(6)], "largest", "no more films") == "batch 6: no more films."


@pytest.mark.parametrize(
    ("effective", "largest", "world", "micro", "steps", "last", "remainder"),
    [
        (6, 6, 1, 6, 1, None, 0),
        (6, 5, 1, 3, 2, None, 0),
        (7, 5, 1, 4, 2, 3, 0),
        (12, 5, 2, 3, 2, None, 0),
        (13, 5, 2, 3, 2, None, 1),
        (100, 7, 1, 7, 15, 2, 0),
        (1, 9, 1, 1, 1, None, 0),
    ],
)
def test_an_effective_batch_is_divided_evenly_with_the_remainder_stated(
    effective, largest, world, micro, steps, last, remainder
):
    division = divide_batch(effective, largest, world)
    assert (division.micro_batch, division.accumulation_steps) == (micro, steps)
    assert (division.last_micro_batch, division.remainder) == (last, remainder)
    plan = make_plan(trial(largest), [trial(largest)], "largest", effective_batch=effective, world_size=world)
    assert plan.effective_batch == effective - remainder
    assert plan.micro_batch <= largest
    if remainder:
        assert f"{remainder} of them do not divide over the cards" in plan.notes[0]


def test_the_reason_names_the_smallest_size_that_does_not_surely_fit():
    risky = [trial(size, Verdict.RISKY, used=(2 + size) * GIB) for size in (8, 7)]
    assert reason_for(trial(6), [trial(6), *risky], "fastest").startswith("batch 6: 7 may exceed")


@pytest.mark.parametrize(
    ("effective", "tried", "said"),
    [
        (6, [trial(6, Verdict.OOM)], "A micro-batch of 6 runs out of memory; 2 x 3 divides 6 evenly."),
        (12, [trial(6, Verdict.OOM)], "A micro-batch of 6 runs out of memory; 3 x 4 divides 12 evenly."),
        (
            7,
            [trial(6, Verdict.OOM)],
            "A micro-batch of 6 runs out of memory; 2 of up to 4 divide the batch most evenly.",
        ),
        (12, [], "Micro-batches of up to 5 were allowed; 3 x 4 divides 12 evenly."),
        (10, [trial(6, Verdict.OOM)], "batch 5: 6 runs out of memory."),
    ],
)
def test_a_divided_plan_says_why_it_is_divided_so(effective, tried, said):
    assert make_plan(trial(5), [trial(5), *tried], "largest", effective_batch=effective).reason == said


def test_fewer_samples_than_cards_cannot_be_divided():
    with pytest.raises(UsageError, match="cannot be divided over 4 cards"):
        divide_batch(3, 8, 4)


def test_batch_norm_is_told_of_accumulation_and_of_batches_of_one():
    assert batch_norm_notes(divide_batch(6, 6)) == []
    assert "micro-batches of 3, not the effective batch" in batch_norm_notes(divide_batch(6, 5))[0]
    assert "single sample" in batch_norm_notes(divide_batch(2, 1))[1]


def test_scaling_the_learning_rate_is_offered_and_never_done():
    assert learning_rate_offer(3e-4, 6, 6) is None
    said = learning_rate_offer(3e-4, 6, 24)
    assert said is not None
    assert said.startswith("The learning rate stays 0.0003.")
    assert "0.0012" in said
    assert "0.0006" in said


@pytest.mark.parametrize(
    ("largest", "said"),
    [
        (13, "one micro-batch of 13."),
        (7, "a micro-batch of 7 and a last one of 6, weighted by its size."),
        (5, "2 micro-batches of 5 and a last one of 3, weighted by its size."),
    ],
)
def test_a_prime_batch_is_told_in_its_parts(largest, said):
    assert divide_batch(13, largest).note(13, 1) == f"The effective batch of 13 is {said}"

"""The search on every kind of memory: the optimum where memory grows with the batch, an honest fit elsewhere."""

from functools import partial
from operator import ge

from hypothesis import given
from hypothesis import strategies as st

from vramfit.plan.search import Search, Tried, table_sizes
from vramfit.records import Verdict
from vramfit.units import GIB, MIB

BUDGET = 8 * GIB


def run(search, fits, used=None, longest=80):
    tried = []
    while (size := search.next_size(tried)) is not None:
        assert search.minimum <= size <= search.maximum
        good = fits(size)
        read = used(size) if used and good else None
        tried.append(Tried(size, Verdict.FITS if good else Verdict.OOM, read))
        assert len(tried) < longest, [one.micro_batch for one in tried]
    return search.answer(tried), tried


limits = st.integers(0, 4096)
guesses = st.one_of(st.none(), st.integers(1, 10_000))


@given(limits, guesses, st.integers(1, 64), st.one_of(st.none(), st.integers(64, 10_000)))
def test_yes_and_no_find_the_optimum(limit, guess, minimum, maximum):
    search = Search(minimum=minimum, maximum=maximum or 65_536, guess=guess)
    answer, tried = run(search, lambda size: size <= limit)
    best = min(limit, search.maximum)
    assert answer == (best if best >= minimum else None)
    assert len({one.micro_batch for one in tried}) == len(tried)


@given(
    st.integers(1, 4096),
    guesses,
    st.floats(0, 0.9),
    st.sampled_from([1, 512, 2 * MIB, 64 * MIB]),
    st.floats(0.5, 2.0),
)
def test_a_line_finds_the_optimum_however_unevenly_memory_grows(limit, guess, fixed, granularity, bend):
    scale = BUDGET * (1 - fixed) / (limit + 0.5) ** bend

    def used(size):
        exact = BUDGET * fixed + scale * size**bend
        return int(-(-exact // granularity) * granularity)

    answer, tried = run(Search(guess=guess, budget_bytes=BUDGET), lambda size: used(size) <= BUDGET, used)
    size = 0
    while used(size + 1) <= BUDGET:
        size += 1
    assert answer == (size or None)
    assert len({one.micro_batch for one in tried}) == len(tried)


@given(st.lists(st.integers(0, 10), min_size=1, max_size=40), guesses)
def test_a_plateau_or_a_step_is_no_obstacle(increments, guess):
    heights = [sum(increments[: place + 1]) * 100 * MIB for place in range(len(increments))]

    def used(size):
        return heights[size - 1] if size <= len(heights) else 2 * BUDGET

    answer, _ = run(Search(guess=guess, budget_bytes=BUDGET), lambda size: used(size) <= BUDGET, used)
    fitting = [size for size in range(1, len(heights) + 1) if used(size) <= BUDGET]
    assert answer == (max(fitting) if fitting else None)


@given(st.sets(st.integers(1, 300)), guesses, st.booleans())
def test_memory_that_is_not_monotone_gets_an_honest_answer(fitting, guess, measured):
    search = Search(guess=guess, maximum=512, budget_bytes=BUDGET if measured else None)
    answer, tried = run(search, lambda size: size in fitting, (lambda size: size * MIB) if measured else None)
    ran = {one.micro_batch: one.fits for one in tried}
    if answer is None:
        assert ran[1] is False
    else:
        assert ran[answer] is True
        assert ran.get(answer + 1) is False


@given(st.integers(2, 12), st.floats(0.9, 1.1))
def test_a_cliff_at_a_good_guess_is_found_from_below(limit, error):
    """The line leads to twice the limit; a guess that knows better is believed first."""
    scale = BUDGET / (2 * limit)
    guess = max(1, round(limit * error))
    answer, tried = run(
        Search(guess=guess, budget_bytes=BUDGET), lambda size: size <= limit, lambda size: int(scale * size)
    )
    assert answer == limit
    assert sum(not one.fits for one in tried) == 1


@given(limits, guesses, st.booleans(), st.integers(1, 9))
def test_an_anchored_answer_has_half_of_it_tried_beside_it(limit, guess, measured, minimum):
    search = Search(guess=guess, minimum=minimum, budget_bytes=BUDGET if measured else None, anchored=True)
    answer, tried = run(search, lambda size: size <= limit, (lambda size: size * MIB) if measured else None)
    assert answer == (limit if limit >= minimum else None)
    sizes = [one.micro_batch for one in tried]
    assert answer is None or answer // 2 < minimum or min(sizes) <= answer // 2
    assert len(set(sizes)) == len(sizes)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8), limits)
def test_a_users_list_is_tried_in_its_order_until_one_fits(candidates, limit):
    answer, tried = run(Search(candidates=tuple(candidates)), lambda size: size <= limit)
    fitting = [size for size in candidates if size <= limit]
    assert answer == (fitting[0] if fitting else None)
    order = list(dict.fromkeys(candidates))
    assert [one.micro_batch for one in tried] == order[: len(tried)]


@given(st.integers(1, 4096), st.floats(0.9, 1.1), st.floats(0.02, 0.5))
def test_a_good_guess_and_a_line_take_few_trials(limit, error, fixed):
    scale = BUDGET * (1 - fixed) / (limit + 0.5)

    def used(size):
        return int(BUDGET * fixed + scale * size)

    _, tried = run(
        Search(guess=max(1, round(limit * error)), budget_bytes=BUDGET), lambda size: used(size) <= BUDGET, used
    )
    assert len(tried) <= 9
    assert sum(not one.fits for one in tried) <= 1


@given(st.integers(1, 2048), st.floats(0.9, 1.1))
def test_a_good_guess_and_yes_and_no_take_few_trials(limit, error):
    _, tried = run(Search(guess=max(1, round(limit * error))), lambda size: size <= limit)
    assert len(tried) <= 20
    assert sum(not one.fits for one in tried) <= 3


@given(st.integers(2049, 58_000), st.floats(0.9, 1.1))
def test_a_good_guess_of_many_thousands_takes_no_more_than_some_dozens(limit, error):
    """As rows of a table have it: 32 at a time would take hundreds."""
    _, tried = run(Search(guess=round(limit * error)), lambda size: size <= limit)
    assert len(tried) <= 60
    assert sum(not one.fits for one in tried) <= 5


def test_a_good_guess_and_yes_and_no_take_seven_trials_in_the_mean():
    doublings = [1 << power for power in range(13)]
    errors = [0.9 + 0.02 * step for step in range(11)]
    counts = [
        len(run(Search(guess=max(1, round(limit * error))), partial(ge, limit))[1])
        for limit in doublings
        for error in errors
    ]
    assert sum(counts) / len(counts) <= 7


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_table_starts_at_one_and_ends_one_past(largest, maximum):
    sizes = table_sizes(min(largest, maximum), maximum)
    assert sizes[0] == 1
    assert sizes[-1] == min(largest + 1, maximum)
    assert min(largest, maximum) in sizes
    assert len(sizes) <= 16
    assert list(sizes) == sorted(set(sizes))

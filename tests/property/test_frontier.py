"""The planner of recomputation: never over budget, never beaten, no worse with more room."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.plan.recomputation import Choice, Layout, Part, choose_parts, judge, smallest_budget, uniform

SIZES = st.integers(0, 100)
SECONDS = st.integers(1, 20).map(lambda number: number / 4)


@st.composite
def parts(draw, name, base, inner=True):
    plain = base + draw(SIZES)
    inside = None
    if inner and draw(st.booleans()):
        number = draw(st.integers(1, 3))
        blocks = tuple(draw(parts(f"{name}.{place}", base, inner=False)) for place in range(number))
        inside = Layout(blocks, base + draw(SIZES))
        plain = max([inside.last_bytes, *(block.plain_bytes for block in blocks)])
    whole = "module" if inside else "block"
    choices = [
        Choice(setting, draw(SIZES), draw(SECONDS), plain + draw(st.integers(0, 20)))
        for setting in ("selective", whole)
        if draw(st.booleans())
    ]
    return Part(name, plain, tuple(choices), inside)


@st.composite
def layouts(draw, most=4):
    base = draw(st.integers(200, 400))
    number = draw(st.integers(1, most))
    return Layout(tuple(draw(parts(f"p{place}", base)) for place in range(number)), base + draw(SIZES))


def selections(layout):
    """Every selection there is."""
    options = []
    for part in layout.parts:
        whole = [{part.name: choice.setting} for choice in part.choices]
        options.append(whole + (list(selections(part.inner)) if part.inner else [{}]))
    for several in itertools.product(*options):
        yield {name: setting for one in several for name, setting in one.items()}


@settings(max_examples=150)
@given(layouts(most=3), st.integers(0, 520))
def test_the_choice_is_the_best_of_all_that_fit(layout, budget):
    fitting = [judge(layout, selection) for selection in selections(layout)]
    fitting = [one for one in fitting if one.peak_bytes <= budget]
    chosen = choose_parts(layout, budget)
    assert (chosen is None) == (not fitting)
    if chosen is not None:
        assert chosen.peak_bytes <= budget
        assert chosen.added_s == pytest.approx(min(one.added_s for one in fitting))


@settings(max_examples=100)
@given(layouts(), st.integers(0, 520), st.floats(0.01, 5))
def test_with_a_tolerance_it_stays_within_the_budget_and_the_tolerance(layout, budget, tolerance_s):
    exact, near = choose_parts(layout, budget), choose_parts(layout, budget, tolerance_s=tolerance_s)
    assert (exact is None) == (near is None)
    if exact is not None:
        assert near.peak_bytes <= budget
        assert exact.added_s <= near.added_s + 1e-9
        assert near.added_s <= exact.added_s + tolerance_s + 1e-9


@settings(max_examples=100)
@given(layouts(), st.integers(0, 520), st.integers(0, 100))
def test_more_room_never_costs_time(layout, budget, more):
    tight, wide = choose_parts(layout, budget), choose_parts(layout, budget + more)
    assert tight is None or wide.added_s <= tight.added_s + 1e-9


@settings(max_examples=100)
@given(layouts())
def test_the_smallest_budget_is_just_enough(layout):
    least = smallest_budget(layout)
    assert choose_parts(layout, least) is not None
    assert least == 0 or choose_parts(layout, least - 1) is None


@settings(max_examples=100)
@given(layouts(), st.sampled_from(["selective", "block", "module"]))
def test_no_uniform_setting_is_faster_in_the_same_memory(layout, setting):
    alike = judge(layout, uniform(layout, setting))
    assert choose_parts(layout, alike.peak_bytes).added_s <= alike.added_s + 1e-9


def test_a_whole_network_is_planned_in_time():
    blocks = []
    for n in range(200):
        selective = Choice("selective", 7 + n % 5, 0.1 + n % 7 / 90, 1001)
        blocks.append(Part(f"p{n}", 1000, (selective, Choice("block", 20 + n % 11, 0.3, 1005))))
    chosen = choose_parts(Layout(tuple(blocks), 6000), 3500, tolerance_s=0.02)
    assert chosen is not None
    assert chosen.peak_bytes <= 3500

"""On a terminal of any width no number of any table is cut, no line is too long, and words stay whole."""

import re
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import make_profile, make_trial
from made_reports import make_report
from rich.cells import cell_len
from rich.console import Console

from vramfit.cards import CARDS
from vramfit.landmarks.evaluation.compare import compare
from vramfit.landmarks.report import comparison, evaluation
from vramfit.prediction.frontier import Frontier, FrontierRow
from vramfit.records import Lever, Plan, Schedule
from vramfit.report import cards, frontier, profile_difference, table, terminal

WIDTHS = st.integers(60, 200)
SLOW = {"step_time_s": 30.0, "step_time_band_s": (10.0, 90.0), "budget_gib": 1200.0}
TRIALS = [make_trial(size, **SLOW) for size in (1, 64, 1024)]
ERRORS = np.random.default_rng(0).gamma(3, 40, size=(20, 4))


def _frontier():
    levers = (Lever(name="half_upsample"), Lever(name="recompute", setting="block", modules=("a", "b")))
    rows = [
        FrontierRow(label="planned recomputation", levers=levers, trial=trial, reason="exceeds the budget by 12.5 GiB")
        for trial in TRIALS
    ]
    return Frontier(rows=(rows[0].model_copy(update={"chosen": True}), *rows[1:]))


def _tables():
    long = make_profile(trials=tuple(TRIALS), plan=Plan(micro_batch=64, reason="because"))
    report = make_report(ERRORS)
    yield "trials", table.trial_table(TRIALS, 64, Schedule())
    yield "trials without times", table.trial_table(TRIALS, 64, None)
    yield "plans", table.plan_table("image", [("512x640", long), ("1024x1024", None)])
    yield "profiles", table.profile_list({"a-profile-of-a-long-name-1024": long, "b": make_profile()})
    yield "difference", profile_difference.difference_table(("rtx3070ti-1024", "b"), (long, make_profile()))
    yield "levers", frontier.frontier_table(_frontier(), Schedule())
    yield "figures of levers", frontier.numbered_figures(_frontier(), Schedule())
    yield "cards", cards.cards_table(CARDS[:3], sources=False)
    yield "cards", cards.cards_table(CARDS[:3], sources=True)
    yield "summary", evaluation.summary_table(report)
    yield "landmarks", evaluation.landmark_table(report)
    yield "machines", evaluation.machine_table(report)
    both = compare(report, make_report(ERRORS + 0.3, checkpoint="second.pth"))
    yield "comparison", comparison.comparison_table(both)


TABLES = dict(_tables())
# A figure: digits with their signs, points and percent, as a reader sees them in one piece.
FIGURE = re.compile(r"[-+]?\d[\d.,:]*(?:e[-+]?\d+)?")


def drawn(one, width):
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=True, **terminal._AS_WRITTEN)
    for part in terminal.drawn_for(one, console):
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=12)
@given(width=WIDTHS)
def test_no_number_is_cut(name, width):
    one = TABLES[name]
    text = drawn(one, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\u2026" not in text
    figures = [cell for column in one.columns if not terminal._is_words(column) for cell in column._cells]
    for cell in figures:
        for part in str(cell).splitlines():
            assert part in text, (part, width)
    for figure in FIGURE.findall(" ".join(map(str, figures))):
        assert figure in text


@settings(max_examples=30)
@given(WIDTHS, st.lists(st.from_regex(r"[a-z0-9-]{1,20}( [a-z]{1,12})?", fullmatch=True), min_size=1, max_size=4))
def test_no_word_of_a_name_is_broken(width, names):
    one = terminal.make_table(("name", "batch", "source", "made"))
    for name in names:
        one.add_row(name, "3", "predicted", "2026-11-26")
    text = drawn(one, width)
    assert max(map(cell_len, text.splitlines())) <= width
    for name in names:
        assert all(word in text.split() for word in name.split())


CELLS = st.one_of(st.floats(-1e9, 1e9).map("{:+.2f}".format), st.integers(0, 10**12).map(str), st.just("-"))


@settings(max_examples=50)
@given(WIDTHS, st.integers(1, 12).flatmap(lambda n: st.lists(st.tuples(*[CELLS] * n), min_size=1, max_size=4)))
def test_no_number_of_a_table_of_any_shape_is_cut(width, rows):
    one = terminal.make_table(("landmark", *(f"column {place}" for place in range(len(rows[0])))))
    for place, row in enumerate(rows):
        one.add_row(f"a name of several words {place}", *row)
    text = drawn(one, width)
    assert max(map(cell_len, text.splitlines())) <= width
    for row in rows:
        assert all(re.search(rf"(?<![\d.+-]){re.escape(cell)}(?![\d.])", text) for cell in row)


@given(st.lists(st.from_regex(r"[a-z0-9.]{1,20}", fullmatch=True), min_size=1, max_size=60), WIDTHS)
def test_sentences_wrap_between_words(words, width):
    lines = terminal.wrapped(" ".join(words), width).splitlines()
    assert " ".join(lines).split() == words
    assert max(map(len, lines)) <= width

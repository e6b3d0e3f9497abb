"""What is said of two checkpoints is no more than the test allows."""

from io import StringIO

import numpy as np
import pytest
from made_reports import make_report

from vramfit.landmarks.evaluation.compare import compare
from vramfit.landmarks.report.comparison import comparison_table, p_value, show_comparison, verdict
from vramfit.report.terminal import plain_text


@pytest.fixture
def errors():
    return np.random.default_rng(0).gamma(3, 0.5, size=(20, 4))


def compared(errors, change):
    return compare(make_report(errors), make_report(errors + change, checkpoint="second.pth"))


def test_the_better_one_is_named_whichever_it_is(errors):
    assert verdict(compared(errors, 0.3)).startswith("The first is better by 0.30 mm: difference -0.30 mm a film")
    assert verdict(compared(errors, -0.3)).startswith("The second is better by 0.30 mm: difference +0.30 mm a film")


def test_what_cannot_be_told_is_not_told(errors):
    noise = np.random.default_rng(1).normal(0, 1, size=errors.shape)
    said = verdict(compared(errors, noise - noise.mean()))
    assert said.startswith("Which of the two is better cannot be told from these films: difference ")
    assert "p = 1" in said


def test_one_film_has_no_interval_and_decides_nothing(errors):
    said = verdict(compared(errors[:1], 0.3))
    assert said.endswith("cannot be told from these films: difference -0.30 mm a film (p = 1.000, 1 film).")


def test_landmarks_that_stand_out_are_marked(errors):
    rows = plain_text(comparison_table(compared(errors, np.array([0.5, 0, 0, 0])))).splitlines()[1:]
    assert [row.split()[1] == "*" for row in rows] == [True, False, False, False]


def test_the_console_gets_both_results_and_the_sources(errors):
    out = StringIO()
    show_comparison(compared(errors, 0.3), out)
    for words in ("First: first.pth", "Second: second.pth", "Holm 1979", "Fisher 1935", "seed 0"):
        assert words in out.getvalue(), words
    assert out.getvalue().count("95 %: ") == 1
    assert "SDR" not in out.getvalue(), "explained, but not in the table"


@pytest.mark.parametrize(
    ("value", "said"), [(1.0, "1.000"), (0.456, "0.456"), (0.0123, "0.012"), (1 / 10001, "<0.001")]
)
def test_p_values_have_three_decimals(value, said):
    assert p_value(value) == said

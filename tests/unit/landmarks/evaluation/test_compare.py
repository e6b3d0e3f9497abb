"""Two checkpoints on the same films: paired, masked, adjusted, and in the right direction."""

import numpy as np
import pytest
from made_reports import make_report

from vramfit.errors import DataError
from vramfit.landmarks.evaluation.compare import Comparison, compare

FILMS, LANDMARKS = 30, 4


@pytest.fixture
def errors():
    return np.random.default_rng(0).gamma(3, 0.5, size=(FILMS, LANDMARKS))


def test_the_better_one_has_the_lower_error(errors):
    worse = errors + np.random.default_rng(1).normal(0.3, 0.2, size=errors.shape)
    found = compare(make_report(errors), make_report(worse))
    assert found.overall.mean_mm == pytest.approx((errors - worse).mean())
    assert found.overall.interval_mm[1] < 0
    assert found.overall.p_value < 0.001
    assert compare(make_report(worse), make_report(errors)).overall.mean_mm == pytest.approx(-found.overall.mean_mm)


def test_pairing_sees_what_the_intervals_of_both_do_not(errors):
    films = np.random.default_rng(2).normal(0, 2, size=(FILMS, 1)) + 6
    first, second = make_report(errors + films), make_report(errors + films + 0.1)
    found = compare(first, second)
    assert first.evaluation.overall.interval_mm[1] > second.evaluation.overall.interval_mm[0]
    assert found.overall.p_value < 0.001
    assert found.overall.interval_mm == pytest.approx((-0.1, -0.1))


def test_landmarks_are_adjusted_for_their_number(errors):
    other = errors.copy()
    other[:, 0] += 1
    found = compare(make_report(errors), make_report(other))
    first, *rest = found.landmarks.values()
    assert first.adjusted_p_value == pytest.approx(LANDMARKS * first.p_value)
    assert first.adjusted_p_value < 0.01
    assert [each.adjusted_p_value for each in rest] == [1, 1, 1]
    assert found.overall.adjusted_p_value == found.overall.p_value


def test_missing_points_are_left_out_and_every_film_counts_alike(errors):
    errors[0, 1:] = np.nan
    errors[1] = np.nan
    errors[:, 3] = np.nan
    found = compare(make_report(errors), make_report(errors + 0.5))
    assert found.overall.films == FILMS - 1
    assert found.overall.mean_mm == pytest.approx(-0.5)
    assert {symbol: each.films for symbol, each in found.landmarks.items()} == {"A": 29, "B": 28, "N": 28}


def test_only_films_that_both_have_are_compared(errors):
    fewer = make_report(errors[:10])
    assert compare(make_report(errors), fewer).overall.films == 10


def test_what_cannot_be_compared_is_said(errors):
    with pytest.raises(DataError, match="different landmarks"):
        compare(make_report(errors), make_report(errors[:, :3]))
    with pytest.raises(DataError, match="no film in common"):
        compare(make_report(errors), make_report(np.full_like(errors, np.nan)))


def test_the_document_loads_back(errors):
    found = compare(make_report(errors), make_report(errors + 0.1))
    assert Comparison.model_validate_json(found.model_dump_json()) == found

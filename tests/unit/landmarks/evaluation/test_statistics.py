"""Intervals and tests: against textbooks, against counting every case, and against what they must not see."""

from itertools import product

import numpy as np
import pytest

from vramfit.landmarks.evaluation.statistics import bootstrap_interval, holm, paired_interval, sign_flip_p_values


def test_the_interval_is_that_of_textbooks():
    random = np.random.default_rng(1)
    errors = random.normal(2, 0.5, size=(150, 19))
    low, high = bootstrap_interval(errors)
    # For independent points the interval is mean +- 1.96 SD / sqrt(points).
    half = 1.96 * 0.5 / np.sqrt(errors.size)
    assert (low, high) == pytest.approx((errors.mean() - half, errors.mean() + half), abs=0.004)
    assert bootstrap_interval(errors) == (low, high)
    assert bootstrap_interval(errors, seed=1) != (low, high)


def test_the_interval_knows_that_landmarks_of_a_film_go_together():
    random = np.random.default_rng(2)
    errors = np.repeat(random.normal(2, 0.5, size=(150, 1)), 19, axis=1)
    low, high = bootstrap_interval(errors)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(150), rel=0.15)


@pytest.mark.parametrize(("films", "held"), [(150, 0.95), (20, 0.92), (10, 0.90), (5, 0.82)])
def test_the_interval_holds_the_mean_as_often_as_the_docs_say(films, held):
    random = np.random.default_rng(films)

    def drawn():
        return random.gamma(4, 0.1, size=(films, 1)) + random.gamma(2, 0.5, size=(films, 29))

    sure = [bootstrap_interval(drawn(), resamples=500) for _ in range(1000)]
    assert np.mean([low < 1.4 < high for low, high in sure]) == pytest.approx(held, abs=0.03)


def test_missing_points_do_not_move_the_interval():
    errors = np.random.default_rng(3).normal(2, 0.5, size=(40, 4))
    padded = np.concatenate([errors, np.full((40, 2), np.nan)], axis=1)
    assert bootstrap_interval(padded) == pytest.approx(bootstrap_interval(errors))
    assert bootstrap_interval(np.array([[1.0, 2.0], [np.nan, np.nan]])) is None


def every_flip(differences):
    """The exact p-value: all 2^N signs."""
    seen = abs(differences.sum())
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(differences))]
    return np.mean([total >= seen - 1e-12 for total in sums])


def test_random_flips_come_near_all_flips():
    random = np.random.default_rng(4)
    differences = random.normal(0.4, 1, size=(10, 3))
    exact = [every_flip(column) for column in differences.T]
    assert sign_flip_p_values(differences) == pytest.approx(exact, abs=0.015)


def test_the_seed_decides():
    differences = np.random.default_rng(5).normal(0.3, 1, size=(12, 2))
    assert list(sign_flip_p_values(differences)) == list(sign_flip_p_values(differences))
    assert list(sign_flip_p_values(differences)) != list(sign_flip_p_values(differences, seed=1))


def test_equal_checkpoints_are_never_told_apart():
    assert list(sign_flip_p_values(np.zeros((8, 2)))) == [1, 1]
    assert paired_interval(np.zeros(8)) == (0, 0)


def test_a_sure_difference_is_bounded_by_the_number_of_flips():
    assert sign_flip_p_values(np.ones((40, 1)), flips=999)[0] == pytest.approx(0.001)


def test_p_values_are_uniform_where_nothing_differs():
    random = np.random.default_rng(6)
    found = [sign_flip_p_values(random.normal(size=(20, 1)), flips=400, seed=seed)[0] for seed in range(300)]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_missing_differences_do_not_count():
    differences = np.array([[0.5], [0.7], [np.nan], [0.6], [0.2], [0.4]])
    assert sign_flip_p_values(differences)[0] == pytest.approx(2 / 2**5, abs=0.01)
    assert paired_interval(differences[:, 0]) == pytest.approx((0.34, 0.62), abs=0.03)


def test_holm_is_that_of_the_textbook():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 which may not fall below the one before.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(holm(np.array([0.9, 0.8]))) == [1, 1]
    assert list(holm(np.array([0.2]))) == [0.2]

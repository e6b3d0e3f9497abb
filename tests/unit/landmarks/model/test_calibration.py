"""Regions hold what they promise, expected errors follow the evidence, and what is odd is said."""

import numpy as np
import pytest

from vramfit.errors import DataError
from vramfit.landmarks.model.calibration import Calibration, Observed, calibrated, shape_distance

SHAPE = np.array([[50.0, 60.0], [120.0, 60.0], [80.0, 150.0], [60.0, 200.0]])


def observed(films, seed=0, raters=True):
    """Films whose errors grow as heatmaps get lower and wider; the last landmark errs twice as much as the first."""
    random = np.random.default_rng(seed)
    doubt = random.uniform(0, 1, (films, 4))
    spread = np.exp(1.5 * doubt) * np.array([0.5, 0.7, 0.8, 1.0])
    truth = SHAPE + random.normal(0, 3, (films, 4, 2))
    offsets = random.normal(0, 1, (films, 4, 2)) * spread[..., None]
    apart = random.normal(0, 2, (films, 4, 2)) if raters else np.full((films, 4, 2), np.nan)
    return Observed(truth + offsets, truth, np.exp(-doubt), 100 * np.exp(doubt), apart)


def coverage(calibration, seen):
    inside = []
    for n in range(len(seen.points)):
        sure = calibration.of(seen.points[n], seen.peaks[n], seen.areas[n], SHAPE)
        inside.append(np.linalg.norm(seen.points[n] - seen.truth[n], axis=1) <= sure.radii)
    return np.mean(inside, axis=(0, 2))


def test_regions_of_few_films_hold_what_they_promise_on_average():
    shares = [coverage(calibrated(observed(15, seed), SHAPE), observed(40, seed + 100)) for seed in range(40)]
    np.testing.assert_allclose(np.mean(shares, axis=0), [0.5, 0.8, 0.9, 0.95], atol=0.02)


def test_expected_errors_follow_the_evidence():
    calibration, seen = calibrated(observed(60), SHAPE), observed(200, 1)
    sure = [calibration.of(*each, SHAPE) for each in zip(seen.points, seen.peaks, seen.areas, strict=True)]
    expected = np.stack([each.expected for each in sure])
    errors = np.linalg.norm(seen.points - seen.truth, axis=2)
    assert np.corrcoef(expected.ravel(), errors.ravel())[0, 1] > 0.35
    assert expected.mean() == pytest.approx(errors.mean(), rel=0.1)
    assert expected[:, 3].mean() > 1.5 * expected[:, 0].mean()


def test_second_moments_are_those_of_the_errors_and_of_one_rater():
    calibration = calibrated(observed(2000), SHAPE)
    np.testing.assert_allclose(np.array(calibration.raters), np.tile(2 * np.eye(2), (4, 1, 1)), atol=0.2)
    network = np.array(calibration.network)
    assert network[3].trace() > 3 * network[0].trace()
    assert calibrated(observed(20, raters=False), SHAPE).raters is None


def test_a_low_heatmap_is_no_evidence_and_low_ones_alone_make_a_film_unlike():
    seen = observed(20)
    calibration = calibrated(seen, SHAPE)
    usual = calibration.of(seen.points[0], seen.peaks[0], seen.areas[0], SHAPE)
    assert usual.evidence.all()
    assert usual.unlike is None
    one = calibration.of(seen.points[0], np.array([0.02, 0.6, 0.6, 0.6]), seen.areas[0], SHAPE)
    assert one.evidence.tolist() == [False, True, True, True]
    assert "lower" in calibration.of(seen.points[0], np.full(4, 0.02), seen.areas[0], SHAPE).unlike


def test_another_shape_is_unlike_and_a_turned_one_is_not():
    seen = observed(20)
    calibration, turn = calibrated(seen, SHAPE), np.array([[0.8, 0.6], [-0.6, 0.8]])
    assert calibration.of(seen.points[0] @ turn * 2 + 30, seen.peaks[0], seen.areas[0], SHAPE).unlike is None
    mirrored = seen.points[0] * [-1, 1]
    assert "shape" in calibration.of(mirrored, seen.peaks[0], seen.areas[0], SHAPE).unlike


def test_distance_of_shapes_is_one_of_form():
    assert shape_distance(3 * SHAPE + 7, SHAPE) == pytest.approx(0, abs=1e-9)
    assert shape_distance(SHAPE * [-1, 1], SHAPE) > 0.1
    missing = np.where([[False], [True], [False], [False]], np.nan, SHAPE)
    assert shape_distance(missing, SHAPE) == pytest.approx(0, abs=1e-9)


def test_missing_points_take_no_part():
    seen = observed(20)
    seen.truth[3, 1] = np.nan
    seen.truth[:, 2] = np.nan
    calibration = calibrated(seen, SHAPE)
    assert np.isfinite(calibration.quantiles).all()
    assert np.isfinite(np.array(calibration.network)).all()


def test_too_few_films_are_refused():
    with pytest.raises(DataError, match="7 films are too few"):
        calibrated(observed(7), SHAPE)


def test_lengths_come_into_film_pixels():
    seen = observed(20)
    sure = calibrated(seen, SHAPE).of(seen.points[0], seen.peaks[0], seen.areas[0], SHAPE)
    larger = sure.enlarged(2.5)
    np.testing.assert_allclose(larger.radii, 2.5 * sure.radii)
    np.testing.assert_allclose(larger.network, 6.25 * sure.network)
    np.testing.assert_allclose(larger.relative, sure.relative)


def test_it_says_nothing_of_points_that_were_found_otherwise():
    calibration = calibrated(observed(20)._replace(method="dark", views=1), SHAPE)
    assert calibration.misfit("dark", 1) is None
    assert "--decode dark --tta 1" in calibration.misfit("argmax", 1)
    assert "--tta 8" in calibration.misfit("dark", 8)
    old = calibration.model_copy(update={"method": None, "views": None})
    assert "calibrate` again" in old.misfit("dark", 1)


def test_it_comes_back_from_json():
    calibration = calibrated(observed(20), SHAPE)
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration

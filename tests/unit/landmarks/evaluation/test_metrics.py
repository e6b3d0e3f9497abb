import numpy as np
import pytest

from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.data.letterbox import Letterbox
from vramfit.landmarks.evaluation.metrics import (
    baseline_points,
    evaluate_points,
    mean_shape,
    radial_errors_mm,
    scores,
    to_films,
    true_points,
)


def test_radial_error_uses_both_pixel_sizes():
    errors = radial_errors_mm(np.array([[[3.0, 4.0]]]), np.zeros((1, 1, 2)), np.array([[2.0, 0.5]]))
    assert errors[0, 0] == pytest.approx(np.hypot(6, 2))


def test_scores_by_hand():
    result = scores(np.array([[1.0, 2.0], [2.4, np.nan]]))
    assert result.points == 3
    assert result.mre_mm == pytest.approx(1.8)
    assert result.sd_mm == pytest.approx(np.std([1, 2, 2.4]))
    assert result.sdr == pytest.approx({"2.0mm": 1 / 3, "2.5mm": 1, "3.0mm": 1, "4.0mm": 1})


def test_no_known_point_has_no_scores():
    assert scores(np.full((2, 2), np.nan)).mre_mm is None


def test_perfect_points_have_no_error(film_folder):
    films = load_films(film_folder, "train")
    evaluation = evaluate_points(true_points(films), films)
    assert evaluation.overall.mre_mm == 0
    assert set(evaluation.landmarks) == set(films.symbols)
    assert set(evaluation.machines) == {film.machine for film in films.films}
    assert sum(part.points for part in evaluation.machines.values()) == evaluation.overall.points


def test_letterboxed_points_come_back(film_folder):
    films = load_films(film_folder, "train")
    boxes = [Letterbox.of(film.size, (96, 96)) for film in films.films]
    placed = np.stack([box.to_image(film.points) for box, film in zip(boxes, films.films, strict=True)])
    assert evaluate_points(to_films(placed, boxes), films).overall.mre_mm == pytest.approx(0, abs=1e-9)


@pytest.mark.shared
def test_mean_shape_baseline_of_real_films(shared_data):
    train, valid = (load_films(shared_data / "ceph100", split, "senior") for split in ("train", "valid"))
    baseline = evaluate_points(baseline_points(mean_shape(train, (256, 256)), valid, (256, 256)), valid)
    assert baseline.overall.mre_mm == pytest.approx(9.28, abs=0.005)

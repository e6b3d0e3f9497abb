"""A missing landmark counts nowhere: not in the loss, its gradient, the errors, the scores or the mean shape."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_checkpoint import make_task
from made_formats import write_coco

from vramfit.landmarks.evaluation.metrics import evaluate_points, mean_shape, radial_errors_mm, true_points

HIDDEN = 4


@pytest.fixture(scope="module")
def task(sample_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    films = write_coco(sample_set, folder / "films")
    for split, chosen in (("train", slice(None, 2)), ("valid", slice(None))):
        path = films / "annotations" / f"{split}.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"][chosen]:
            annotation["keypoints"][3 * HIDDEN : 3 * HIDDEN + 3] = [9.0, 9.0, 0]
        path.write_text(json.dumps(content))
    return make_task(films, folder / "cache")


def loss_and_slope(task, indices):
    inputs, targets = task.training.fetch(0, indices)
    _, prepared = task.job.prepare(inputs, targets, True)
    outputs = torch.rand(prepared[0].shape, requires_grad=True)
    task.job.loss(outputs, prepared).backward()
    return outputs.grad


def test_the_loss_has_no_slope_there(task):
    slope = loss_and_slope(task, [0, 2])
    assert torch.count_nonzero(slope[0, HIDDEN]) == 0
    assert torch.count_nonzero(slope[0, HIDDEN - 1]) > 0
    assert torch.count_nonzero(slope[1, HIDDEN]) > 0


def test_errors_and_scores_leave_it_out(task):
    films = task.validation.dataset.cache.film_set
    rows = task.rows(torch.rand(len(films), len(films.landmarks), 16, 16), range(len(films)))
    assert np.isnan(rows[:, HIDDEN]).all()
    assert np.isfinite(np.delete(rows, HIDDEN, axis=1)).all()
    assert np.isfinite(task.judge(rows).metrics["mre_mm"])
    perfect = evaluate_points(np.nan_to_num(true_points(films), nan=50.0), films)
    assert perfect.overall.points == len(films) * (len(films.landmarks) - 1)
    assert perfect.overall.mre_mm == 0
    assert perfect.landmarks[films.symbols[HIDDEN]].points == 0


def test_the_mean_shape_is_that_of_the_others(task):
    cache = task.training.dataset.cache
    expected = cache.points()[2:, HIDDEN].mean(axis=0)
    np.testing.assert_allclose(mean_shape(cache.film_set, cache.image_size)[HIDDEN], expected)


def test_a_landmark_that_no_film_has_is_in_no_mean_shape(task):
    cache = task.training.dataset.cache
    films = tuple(replace(film, points=_without(film.points)) for film in cache.film_set.films)
    shape = mean_shape(replace(cache.film_set, films=films), cache.image_size)
    assert np.isnan(shape[HIDDEN]).all()
    assert np.isfinite(np.delete(shape, HIDDEN, axis=0)).all()


def _without(points):
    return np.where(np.arange(len(points))[:, None] == HIDDEN, np.nan, points)


def test_distances_use_both_sides_of_a_pixel(task):
    films = task.validation.dataset.cache.film_set
    size = np.array([film.pixel_size_mm for film in films.films]) * [1, 3]
    truth = true_points(films)
    moved = radial_errors_mm(truth + np.array([3, 4]), truth, size)
    expected = np.hypot(3 * size[:, 0], 4 * size[:, 1])
    np.testing.assert_allclose(np.delete(moved, HIDDEN, axis=1), np.repeat(expected[:, None], 28, axis=1))

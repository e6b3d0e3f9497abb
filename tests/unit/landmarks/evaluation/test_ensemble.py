"""Several networks together: the mean of what each finds, whatever its image size and the order of its landmarks."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_checkpoint import make_checkpoint, make_films

from vramfit.errors import DataError, UsageError
from vramfit.landmarks.evaluation.compare import compare_checkpoints
from vramfit.landmarks.evaluation.ensemble import load_ensemble, mean_of
from vramfit.landmarks.evaluation.evaluate import EvaluationOptions, evaluate_checkpoint, judge_checkpoint
from vramfit.landmarks.evaluation.inference import find_landmarks, unmarked_films
from vramfit.landmarks.evaluation.predict_points import Predictions
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.training.checkpoint import load, save


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films") / "films")


@pytest.fixture(scope="module")
def checkpoints(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return (
        make_checkpoint(films, folder / "a" / "checkpoint_best.pth"),
        make_checkpoint(films, folder / "b" / "checkpoint_best.pth", seed=1, image_size=(96, 64), heatmap_stride=2),
    )


@pytest.fixture(scope="module")
def options(films, tmp_path_factory):
    return EvaluationOptions(dataset_path=films, device="cpu", cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def alone(checkpoints, options):
    return [judge_checkpoint(path, options) for path in checkpoints]


@pytest.fixture(scope="module")
def together(checkpoints, options):
    return judge_checkpoint(checkpoints[0], replace(options, ensemble=checkpoints[1:]))


def test_the_points_are_the_mean_of_those_of_each(alone, together, checkpoints):
    points = [each.points for each in alone]
    assert np.abs(points[0] - points[1]).max() > 1, "two networks that find the same show nothing"
    np.testing.assert_allclose(together.points, np.mean(points, axis=0), atol=1e-9)
    assert together.report.ensemble == (str(checkpoints[1]),)


def test_landmarks_are_joined_by_symbol(together, checkpoints, options, tmp_path):
    """A network whose landmarks come in another order, and so its heatmaps, finds the same."""
    path = tmp_path / "turned.pth"
    content = load(checkpoints[1])
    content["task"]["landmarks"] = content["task"]["landmarks"][::-1]
    content["task"]["mean_shape"] = content["task"]["mean_shape"][::-1]
    for name in ("head.3.weight", "head.3.bias"):
        content["model"][name] = content["model"][name].flip(0)
    save(content, path)
    points = judge_checkpoint(checkpoints[0], replace(options, ensemble=(path,))).points
    np.testing.assert_allclose(points, together.points, atol=1e-3)


def test_infer_finds_what_evaluate_judges(films, checkpoints, together):
    trained = load_trained(checkpoints[0], "cpu")
    networks = load_ensemble(trained, checkpoints[1:], "cpu")
    unmarked = unmarked_films([films / "test" / "Cephalograms"], trained.landmarks)
    told: list[int] = []
    found = list(find_landmarks(trained, unmarked, batch_size=1, others=networks[1:], on_batch=told.append))
    np.testing.assert_allclose(np.stack([one.points for one in found]), together.points, atol=1e-3)
    assert told == sorted(told)
    assert told[-1] == 2


def test_the_mean_says_how_many_found_it():
    one = Predictions(np.zeros((2, 3, 2)), np.full((2, 3), 0.2), 1.0, (0, 1), np.ones((2, 3)), "soft", 5)
    other = replace(one, points=np.ones((2, 3, 2)), confidence=np.full((2, 3), 0.6), loss=3.0)
    mean = mean_of([one, other])
    assert mean_of([one]) is one
    np.testing.assert_allclose(mean.points, 0.5)
    np.testing.assert_allclose(mean.confidence, 0.4)
    assert (mean.loss, mean.areas, mean.method, mean.views, mean.networks) == (2.0, None, "soft", 5, 2)


def test_films_that_any_of_the_networks_saw_are_named(checkpoints, options, tmp_path):
    of_train, content = replace(options, split="train"), load(checkpoints[0])
    shape = content["task"]["films"]["thumbnails"].shape
    content["task"]["films"]["thumbnails"] = torch.randint(256, shape, dtype=torch.uint8)
    save(content, tmp_path / "others.pth")
    assert evaluate_checkpoint(tmp_path / "others.pth", of_train).leaked == {}
    assert len(evaluate_checkpoint(tmp_path / "others.pth", replace(of_train, ensemble=checkpoints[1:])).leaked) == 8
    content["task"]["films"] = None
    save(content, tmp_path / "unknown.pth")
    unknown = replace(of_train, ensemble=(tmp_path / "unknown.pth",))
    assert evaluate_checkpoint(checkpoints[0], unknown).leaked is None


def test_only_the_first_of_two_compared_is_an_ensemble(checkpoints, options, alone):
    first, second = checkpoints
    _, both = compare_checkpoints(first, second, replace(options, ensemble=(second,)))
    assert (both.first.ensemble, both.second.ensemble) == ((str(second),), ())
    assert both.second.film_mre_mm == alone[1].report.film_mre_mm


def test_other_landmarks_and_a_calibration_are_refused(checkpoints, options, tmp_path):
    content = load(checkpoints[0])
    content["task"]["landmarks"][0] = ["Zz", "Another"]
    other = tmp_path / "other.pth"
    save(content, other)
    with pytest.raises(DataError, match=r"do not know the same landmarks: A, Zz"):
        evaluate_checkpoint(checkpoints[0], replace(options, ensemble=(other,)))
    with pytest.raises(UsageError, match="leave --ensemble out"):
        replace(options, calibrate=True, ensemble=(checkpoints[1],))


def test_a_calibration_of_one_says_nothing_of_several(checkpoints, options, tmp_path, monkeypatch):
    from vramfit.landmarks.model import calibration

    monkeypatch.setattr(calibration, "FEWEST_FILMS", 2)
    path = shutil.copy(checkpoints[0], tmp_path / "checkpoint_best.pth")
    evaluate_checkpoint(path, replace(options, split="valid", calibrate=True))
    assert evaluate_checkpoint(path, options).certainty is not None
    report = evaluate_checkpoint(path, replace(options, ensemble=(checkpoints[1],)))
    assert report.certainty is None
    assert "the mean of 2 networks'" in report.certainty_note

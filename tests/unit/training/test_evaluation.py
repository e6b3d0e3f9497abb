"""A report says what was judged, by whom, beside what, and how sure it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_checkpoint import films_of, make_checkpoint, make_films, make_task

from vramfit.errors import DataError, NoUsableGpu
from vramfit.landmarks.metrics import evaluate_points, mean_shape_points, true_points
from vramfit.records import Lever
from vramfit.training.checkpoint import load, save
from vramfit.training.evaluation import (
    EvaluationOptions,
    EvaluationReport,
    bootstrap_interval,
    evaluate_checkpoint,
    inter_rater,
    report_on,
)
from vramfit.training.score import Predictions
from vramfit.training.trained import load_trained


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films") / "films")


@pytest.fixture(scope="module")
def checkpoint(films, tmp_path_factory):
    return make_checkpoint(films, tmp_path_factory.mktemp("run") / "checkpoint_best.pth", ema_decay=0.9)


@pytest.fixture(scope="module")
def report(films, checkpoint):
    options = EvaluationOptions(dataset_path=films, device="cpu", cache_dir=checkpoint.parent / "cache")
    return evaluate_checkpoint(checkpoint, options)


def perfect_report(trained, films):
    points = true_points(films)
    predictions = Predictions(points, np.ones(points.shape[:2]), 0.0, tuple(range(len(films))))
    return report_on(predictions, trained, films, EvaluationOptions(dataset_path=films.root))


def test_it_says_what_was_judged_and_by_what(report, films):
    assert (report.model, report.image_size, report.epoch) == ("hrnet_w18_small", (64, 64), 3)
    assert (report.split, report.annotator, report.decode, report.films) == ("test", "mean", "dark", 2)
    sizes = [size for film in films_of(films).films for size in film.pixel_size_mm]
    assert report.pixel_size_mm == (min(sizes), max(sizes))
    assert list(report.landmarks) == list(films_of(films).symbols)


def test_the_baseline_is_the_mean_training_position(report, films):
    test = films_of(films)
    expected = evaluate_points(mean_shape_points(films_of(films, "train"), test, (64, 64)), test)
    assert report.baseline.overall.mre_mm == pytest.approx(expected.overall.mre_mm)


def test_an_untrained_network_is_worse_than_the_baseline(report):
    assert report.evaluation.overall.mre_mm > report.baseline.overall.mre_mm


def test_the_films_means_make_the_mean(report):
    assert np.mean(list(report.film_mre_mm.values())) == pytest.approx(report.evaluation.overall.mre_mm)
    low, high = report.interval_mm
    assert min(report.film_mre_mm.values()) <= low <= high <= max(report.film_mre_mm.values())


def test_perfect_points_have_no_error_and_an_interval_of_nothing(checkpoint, films):
    report = perfect_report(load_trained(checkpoint, "cpu"), films_of(films))
    assert report.evaluation.overall.mre_mm == 0
    assert report.evaluation.overall.sdr["2.0mm"] == 1
    assert report.interval_mm == (0, 0)


def test_raters_are_judged_where_both_marked(films):
    test = films_of(films)
    both = inter_rater(test)
    apart = [
        np.linalg.norm((film.raters["junior"] - film.raters["senior"]) * film.pixel_size_mm, axis=1)
        for film in test.films
    ]
    assert both.overall.mre_mm == pytest.approx(np.mean(apart))
    one = replace(test.films[0], raters={"senior": test.films[0].raters["senior"]})
    assert inter_rater(replace(test, films=(one, *test.films[1:]))).overall.points == len(test.symbols)
    alone = tuple(replace(film, raters={"junior": film.raters["junior"]}) for film in test.films)
    assert inter_rater(replace(test, films=alone)) is None


def test_the_document_loads_back(report):
    assert EvaluationReport.model_validate(json.loads(report.model_dump_json())) == report


def test_averaged_weights_are_the_ones_judged(checkpoint, tmp_path):
    content = load(checkpoint)
    content["average"] = {
        name: value + 1 if value.is_floating_point() else value for name, value in content["average"].items()
    }
    save(content, tmp_path / "averaged.pth")
    judged = load_trained(tmp_path / "averaged.pth", "cpu").step.evaluation_model.state_dict()
    plain = load_trained(checkpoint, "cpu").step.evaluation_model.state_dict()
    name = next(name for name, value in plain.items() if value.is_floating_point())
    torch.testing.assert_close(judged[name], plain[name] + 1)


def test_levers_of_training_do_not_change_what_is_found(films, checkpoint, tmp_path):
    levers = (Lever(name="recompute", setting="block"), Lever(name="ema_on_host"))
    levered = make_checkpoint(films, tmp_path / "levered.pth", ema_decay=0.9, levers=levers)
    task = make_task(films, tmp_path / "cache")
    batch = task.validation.fetch(0, [0])
    plain, _ = load_trained(checkpoint, "cpu").step.validate(batch)
    found, _ = load_trained(levered, "cpu").step.validate(batch)
    torch.testing.assert_close(found, plain)


def test_a_file_that_is_no_checkpoint_is_said(tmp_path, checkpoint):
    with pytest.raises(DataError, match="no such checkpoint"):
        load_trained(tmp_path / "nowhere.pth", "cpu")
    (tmp_path / "torn.pth").write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"torn\.pth"):
        load_trained(tmp_path / "torn.pth", "cpu")
    save({**load(checkpoint), "task": {"kind": "other"}}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="not a checkpoint of a landmark network"):
        load_trained(tmp_path / "other.pth", "cpu")


def test_a_card_that_is_not_here_is_said(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoUsableGpu, match="--device cpu"):
        load_trained(checkpoint, "cuda")


def test_other_landmarks_than_the_checkpoints_are_said(films, checkpoint, tmp_path):
    content = load(checkpoint)
    content["task"]["landmarks"][0] = ["Xy", "Something else"]
    save(content, tmp_path / "renamed.pth")
    with pytest.raises(DataError, match="'Xy' is missing"):
        evaluate_checkpoint(tmp_path / "renamed.pth", EvaluationOptions(dataset_path=films, device="cpu"))


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


def test_missing_points_do_not_move_the_interval():
    errors = np.random.default_rng(3).normal(2, 0.5, size=(40, 4))
    padded = np.concatenate([errors, np.full((40, 2), np.nan)], axis=1)
    assert bootstrap_interval(padded) == pytest.approx(bootstrap_interval(errors))
    assert bootstrap_interval(np.array([[1.0, 2.0], [np.nan, np.nan]])) is None


def test_training_and_evaluation_agree(films, checkpoint, tmp_path):
    """The figure of an epoch's line is the figure of `vramfit evaluate` on the same films."""
    task = make_task(films, tmp_path / "cache")
    step = load_trained(checkpoint, "cpu").step
    indices = list(range(len(task.validation)))
    outputs, _ = step.validate(task.validation.fetch(0, indices))
    judged = task.judge(task.rows(outputs, indices))
    options = EvaluationOptions(dataset_path=films, split="valid", device="cpu", cache_dir=tmp_path / "cache")
    assert evaluate_checkpoint(checkpoint, options).evaluation.overall.mre_mm == pytest.approx(judged.mre_mm, rel=1e-4)

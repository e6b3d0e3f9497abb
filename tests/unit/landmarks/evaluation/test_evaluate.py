"""A report says what was judged, by whom, beside what, and how sure it is."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from made_checkpoint import films_of, make_checkpoint, make_films, make_task

from vramfit.errors import DataError, NoUsableGpu, UsageError
from vramfit.landmarks.evaluation.evaluate import (
    EvaluationOptions,
    by_rater,
    evaluate_checkpoint,
    inter_rater,
    judge_checkpoint,
    report_on,
)
from vramfit.landmarks.evaluation.metrics import (
    PixelSizes,
    baseline_points,
    errors_of,
    evaluate_points,
    mean_shape,
    true_points,
)
from vramfit.landmarks.evaluation.predict_points import Predictions
from vramfit.landmarks.evaluation.report import EvaluationReport
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.records import Lever
from vramfit.training.checkpoint import load, save


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
    sizes = [film.pixel_size_mm[0] for film in films_of(films).films]
    assert report.pixel_sizes == PixelSizes(
        width_mm=(min(sizes), max(sizes)), height_mm=(min(sizes), max(sizes)), unequal=0, missing=0
    )
    assert list(report.landmarks) == list(films_of(films).symbols)


def test_the_baseline_is_the_mean_training_position(report, films):
    test = films_of(films)
    expected = evaluate_points(baseline_points(mean_shape(films_of(films, "train"), (64, 64)), test, (64, 64)), test)
    assert report.baseline.overall.mre_mm == pytest.approx(expected.overall.mre_mm)


def test_an_untrained_network_is_worse_than_the_baseline(report):
    assert report.evaluation.overall.mre_mm > report.baseline.overall.mre_mm


def test_the_films_means_make_the_mean(report):
    assert np.mean(list(report.film_mre_mm.values())) == pytest.approx(report.evaluation.overall.mre_mm)
    low, high = report.evaluation.overall.interval_mm
    assert min(report.film_mre_mm.values()) <= low <= high <= max(report.film_mre_mm.values())


def test_perfect_points_have_no_error_and_an_interval_of_nothing(checkpoint, films):
    report = perfect_report(load_trained(checkpoint, "cpu"), films_of(films))
    assert report.evaluation.overall.mre_mm == 0
    assert report.evaluation.overall.sdr["2.0mm"] == 1
    assert report.evaluation.overall.interval_mm == (0, 0)


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


def test_each_rater_judges_the_films_it_marked(films):
    test = films_of(films)
    first, second = test.films
    alone = replace(second, raters={"senior": second.raters["senior"]})
    found = by_rater(true_points(test), replace(test, films=(first, alone)))
    assert {rater: each.overall.points for rater, each in found.items()} == {"senior": 58, "junior": 29, "mean": 58}
    apart = np.linalg.norm((first.points - first.raters["junior"]) * first.pixel_size_mm, axis=1)
    assert found["junior"].overall.mre_mm == pytest.approx(apart.mean())
    assert by_rater(true_points(test)[1:], replace(test, films=(alone,))) == {}


def test_pixel_sizes_that_are_odd_are_counted_and_those_that_lack_are_in_no_figure(checkpoint, films):
    test = films_of(films)
    first, second = test.films
    odd = replace(test, films=(replace(first, pixel_size_mm=(0.1, 0.2)), replace(second, pixel_size_mm=(np.nan,) * 2)))
    report = perfect_report(load_trained(checkpoint, "cpu"), odd)
    assert report.pixel_sizes == PixelSizes(width_mm=(0.1, 0.1), height_mm=(0.2, 0.2), unequal=1, missing=1)
    assert report.evaluation.overall.points == 29
    assert report.film_mre_mm == {first.id: 0, second.id: None}


def test_a_missing_point_is_in_no_figure(checkpoint, films):
    test = films_of(films)
    points = test.films[0].points.copy()
    points[3] = np.nan
    report = perfect_report(
        load_trained(checkpoint, "cpu"), replace(test, films=(replace(test.films[0], points=points),))
    )
    symbol = test.symbols[3]
    assert report.evaluation.overall.points == 28
    assert report.evaluation.landmarks[symbol].mre_mm is None
    assert report.errors_mm[test.films[0].id][3] is None
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


def test_landmarks_asked_for_are_those_judged_in_that_order(films, checkpoint, report):
    wanted = ("N", "A")
    options = EvaluationOptions(
        dataset_path=films, landmarks=wanted, device="cpu", cache_dir=checkpoint.parent / "cache"
    )
    judged = judge_checkpoint(checkpoint, options)
    assert tuple(judged.report.landmarks) == judged.films.symbols == wanted
    assert judged.points.shape == (2, 2, 2)
    for symbol in wanted:
        assert judged.report.evaluation.landmarks[symbol] == report.evaluation.landmarks[symbol]
        assert judged.report.baseline.landmarks[symbol] == report.baseline.landmarks[symbol]
    assert len(judged.report.left_out) == 27
    assert not {*wanted} & {*judged.report.left_out}
    np.testing.assert_allclose(errors_of(judged.points, judged.films), list(judged.report.errors_mm.values()))
    soft = judge_checkpoint(checkpoint, replace(options, landmarks=("N'", "N\u2032")))
    assert tuple(soft.report.landmarks) == ("N`",)
    with pytest.raises(UsageError, match="no landmark 'Xy'"):
        judge_checkpoint(checkpoint, replace(options, landmarks=("A", "Xy")))


def test_films_that_training_saw_are_told_by_their_picture(films, checkpoint, report, tmp_path):
    assert report.leaked == {}
    copied = tmp_path / "films"
    shutil.copytree(films, copied)
    seen = sorted((copied / "train" / "Cephalograms").iterdir())[0]
    known = sorted((copied / "test" / "Cephalograms").iterdir())[0]
    pixels = cv2.imdecode(np.fromfile(seen, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    paler = np.clip(pixels * 0.9 + 12, 0, 255).astype(np.uint8)
    cv2.imencode(".png", paler)[1].tofile(known)
    for theirs in (copied / "test" / "Annotations").rglob(f"{known.stem}.json"):
        shutil.copy(copied / "train" / theirs.relative_to(copied / "test").with_stem(seen.stem), theirs)
    options = EvaluationOptions(dataset_path=copied, device="cpu", cache_dir=tmp_path / "cache")
    assert evaluate_checkpoint(checkpoint, options).leaked == {known.stem: seen.stem}


def test_a_checkpoint_that_does_not_know_its_films_says_nothing_of_leaks(films, checkpoint, tmp_path):
    content = load(checkpoint)
    del content["task"]["films"]
    save(content, tmp_path / "old.pth")
    options = EvaluationOptions(dataset_path=films, device="cpu", cache_dir=tmp_path / "cache")
    assert evaluate_checkpoint(tmp_path / "old.pth", options).leaked is None


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


def test_training_and_evaluation_agree(films, checkpoint, tmp_path):
    """The figure of an epoch's line is the figure of `vramfit evaluate` on the same films."""
    task = make_task(films, tmp_path / "cache")
    step = load_trained(checkpoint, "cpu").step
    indices = list(range(len(task.validation)))
    outputs, _ = step.validate(task.validation.fetch(0, indices))
    judged = task.judge(task.rows(outputs, indices))
    options = EvaluationOptions(dataset_path=films, split="valid", device="cpu", cache_dir=tmp_path / "cache")
    assert evaluate_checkpoint(checkpoint, options).evaluation.overall.mre_mm == pytest.approx(
        judged.metrics["mre_mm"], rel=1e-4
    )

"""What the options of a run make of its films, and what is done with its best checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_checkpoint import make_checkpoint, make_films, make_task

from vramfit.errors import CannotWrite
from vramfit.landmarks.evaluation import certainty
from vramfit.landmarks.evaluation.evaluate import EvaluationOptions, evaluate_checkpoint
from vramfit.landmarks.loading.augment import preset
from vramfit.landmarks.model import calibration
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.landmarks.training.train import FilmSource

CPU = torch.device("cpu")


def test_training_films_are_changed_as_the_options_say_and_those_to_judge_are_not(film_folder, tmp_path):
    options = LandmarkOptions(
        dataset_path=film_folder, image_size=(64, 64), cache_dir=tmp_path, augmentation="light", artefacts=0.3
    )
    task = FilmSource(options).open(None, lambda *_: None)
    assert task.training.dataset.augmentation == replace(preset("light"), artefacts=0.3)
    assert task.validation.dataset.augmentation is None


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A task with two validation films, and its best checkpoint."""
    for module in (calibration, certainty):
        monkeypatch.setattr(module, "FEWEST_FILMS", 2)
    films = make_films(tmp_path / "films")
    return make_task(films, tmp_path / "cache"), make_checkpoint(films, tmp_path / "run" / "checkpoint_best.pth")


def test_a_run_ends_with_a_calibration_on_its_validation_films(trained, tmp_path):
    task, best = trained
    assert task.finish(best, CPU) == ["Calibrated on 2 validation films: `infer` says how sure each point is."]
    mine = load_trained(best, "cpu").calibration
    evaluate_checkpoint(
        best, EvaluationOptions(dataset_path=tmp_path / "films", split="valid", device="cpu", calibrate=True)
    )
    by_hand = load_trained(best, "cpu").calibration
    np.testing.assert_allclose(mine.quantiles, by_hand.quantiles, rtol=1e-3)
    assert mine.misfit("dark", 1) is None, "points are found so where nobody asks for anything else"


def test_too_few_films_and_a_full_disk_end_no_run(trained, monkeypatch):
    task, best = trained
    before = best.read_bytes()
    monkeypatch.setattr(certainty, "FEWEST_FILMS", 3)
    assert "2 validation films with points are too few, 3 are needed" in task.finish(best, CPU)[0]
    monkeypatch.setattr(certainty, "FEWEST_FILMS", 2)

    def full(*_):
        raise CannotWrite(f"{best} cannot be written; free space.")

    monkeypatch.setattr(certainty, "keep_calibration", full)
    assert task.finish(best, CPU) == [f"Not calibrated: {best} cannot be written; free space."]
    assert best.read_bytes() == before


def test_a_card_without_room_for_a_second_network_ends_no_run(trained, monkeypatch):
    task, best = trained

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(certainty, "load_trained", full)
    assert task.finish(best, CPU)[0].startswith("Not calibrated: out of memory")


def test_films_without_points_are_no_films_to_calibrate_on(trained):
    task, best = trained
    cache = task.validation.dataset.cache
    film = replace(cache.film_set.films[0], points=np.full_like(cache.film_set.films[0].points, np.nan))
    cache.film_set = replace(cache.film_set, films=(film, *cache.film_set.films[1:]))
    assert "1 validation films with points are too few" in task.finish(best, CPU)[0]


def test_a_landmark_that_nobody_marked_hinders_no_calibration(trained):
    task, best = trained
    cache = task.validation.dataset.cache
    films = []
    for film in cache.film_set.films:
        points = film.points.copy()
        points[3] = np.nan
        films.append(replace(film, points=points))
    cache.film_set = replace(cache.film_set, films=tuple(films))
    assert task.finish(best, CPU)[0].startswith("Calibrated")
    assert np.isfinite(load_trained(best, "cpu").calibration.usual).all()

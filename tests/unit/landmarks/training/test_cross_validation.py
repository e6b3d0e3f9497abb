"""All folds of a run, and what they come to."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from vramfit.errors import DataError, UsageError, VramfitError
from vramfit.landmarks.data.folds import Fold
from vramfit.landmarks.report.folds import fold_lines
from vramfit.landmarks.sample.make import make_sample
from vramfit.landmarks.training.cross_validation import cross_validate
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.landmarks.training.task import open_films
from vramfit.training.listeners import RunSummary


def options(folder, **changes):
    return LandmarkOptions(dataset_path=folder / "films", save_dir=folder / "run", log_dir=folder / "logs", **changes)


def scripted(given):
    """A run that says what it was asked to do, and whose MRE is its fold's number."""
    return RunSummary(
        epochs=4,
        best_epoch=3,
        best_metrics={"mre_mm": float(given.fold)},
        best_loss=None,
        duration_s=1.0,
        save_dir=given.save_dir,
    )


def here(run, given):
    return run(given)


def test_every_fold_is_run_into_its_own_folder(tmp_path):
    asked = []
    report = cross_validate(
        options(tmp_path, folds=3), lambda given: asked.append(given) or scripted(given), execute=here
    )
    assert [(one.fold, one.save_dir.name, one.log_dir.name) for one in asked] == [
        (number, f"fold_{number}", f"fold_{number}") for number in (1, 2, 3)
    ]
    assert (report.mean_mre_mm, report.sd_mm) == (2, 1)
    assert json.loads((tmp_path / "run" / "folds.json").read_text())["results"][2]["mre_mm"] == 3
    assert fold_lines(report)[0] == "Fold 1: MRE 1.00 mm in epoch 3 of 4."
    assert "3 folds: MRE 2.00 +- 1.00 mm" in fold_lines(report)[-1]


def test_folds_that_were_begun_go_on_and_others_begin(tmp_path):
    (tmp_path / "run" / "fold_1").mkdir(parents=True)
    (tmp_path / "run" / "fold_1" / "checkpoint_latest.pth").write_bytes(b"")
    asked = []
    cross_validate(
        options(tmp_path, folds=2, resume="latest"),
        lambda given: asked.append(given.resume) or scripted(given),
        execute=here,
    )
    assert asked == ["latest", None]


def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="--fold"):
        cross_validate(options(tmp_path, folds=2, resume="some.pth"), scripted, execute=here)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="torchrun"):
        cross_validate(options(tmp_path, folds=2), scripted, execute=here)
    for wrong in ({"folds": 1}, {"fold": 1}, {"folds": 2, "fold": 3}):
        with pytest.raises(UsageError, match="--fold"):
            options(tmp_path, **wrong)


def test_an_error_in_a_fold_s_own_process_comes_back(tmp_path):
    from vramfit.cli.tasks import LANDMARKS
    from vramfit.cli.train import _run

    run = partial(_run, LANDMARKS, log_images=0, as_json=False)
    with pytest.raises(DataError, match="films"):
        cross_validate(options(tmp_path, folds=2, device="cpu"), run)


def vanish(_given):
    os._exit(1)


def test_a_process_that_the_system_ends_is_said(tmp_path):
    with pytest.raises(VramfitError, match="the process of fold 1 was ended from outside"):
        cross_validate(options(tmp_path, folds=2), vanish)


def fold_task(films: Path, number: int):
    from made_checkpoint import MODEL, SIZE

    from vramfit.landmarks.model.options import LandmarkJobOptions

    return open_films(
        films,
        lambda landmarks: LandmarkJobOptions(landmarks=landmarks, model=MODEL, image_size=SIZE),
        cache_dir=films.parent / "cache",
        fold=Fold(number, 3),
    )


@pytest.mark.parametrize("without", ["train", "valid"])
def test_folds_need_films_of_one_split_alone(tmp_path, without):
    films = make_sample(tmp_path / "films", films=20, height=64)
    shutil.rmtree(films / without)
    task = fold_task(films, 1)
    assert (len(task.training), len(task.validation)) == ((9, 5) if without == "valid" else (2, 1))
    shutil.rmtree(films / {"train": "valid", "valid": "train"}[without])
    with pytest.raises(DataError, match="no folder 'train'"):
        fold_task(films, 1)


def test_the_folds_of_a_task_share_its_films_and_its_cache(tmp_path):
    films = make_sample(tmp_path / "films", films=8, height=96)
    seen = []
    for number in (1, 2, 3):
        task = fold_task(films, number)
        mine = [{film.id for film in one.dataset.cache.film_set.films} for one in (task.training, task.validation)]
        assert not mine[0] & mine[1]
        assert len(mine[0] | mine[1]) == 7
        seen += list(mine[1])
        assert f"Fold {number} of 3" in task.notes[0]
        film = task.validation.dataset.cache.film_set.films[0]
        whole = task.validation.fetch(0, (0,))[0]["films"][0, 0].numpy()
        assert (whole == task.validation.dataset.cache.letterboxes[0].apply(_pixels(film.path))).all()
    assert len(seen) == len(set(seen)) == 7
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def _pixels(path: Path):
    from vramfit.landmarks.data.image import read_film

    return read_film(path)

"""What the check finds, training refuses: pictures that are there twice or show nothing, and sets in disorder."""

import csv

import cv2
import numpy as np
import pytest
from made_checkpoint import make_films, make_task
from made_formats import write_csv

from vramfit.errors import DataError
from vramfit.landmarks.check.check import check_films
from vramfit.landmarks.data.folds import Fold
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.training.task import open_films


@pytest.fixture
def films(tmp_path):
    return make_films(tmp_path / "films")


def save(target, pixels):
    target.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def copy(source, target):
    """The source, a little brighter, and its points, as the target is called."""
    save(target, np.clip(read_film(source).astype(int) + 12, 0, 255).astype(np.uint8))
    for mine in (target.parents[1] / "Annotations" / "Cephalometric Landmarks").glob(f"*/{target.stem}.json"):
        theirs = source.parents[1] / mine.relative_to(target.parents[1]).with_name(f"{source.stem}.json")
        mine.write_text(theirs.read_text(encoding="utf-8").replace(source.stem, target.stem), encoding="utf-8")


def open_task(films, folder, **how):
    options = {"model": "hrnet_w18_small", "image_size": (64, 64), "weights": "none", "amp": None}
    return open_films(films, lambda k: LandmarkJobOptions(landmarks=k, **options), cache_dir=folder, **how)


def refused_and_skipped(films, tmp_path, kind, said, skipped):
    assert kind in {found.kind for found in check_films(films).findings if found.severity == "error"}
    with pytest.raises(DataError, match=said):
        make_task(films, tmp_path / "cache")
    task = open_task(films, tmp_path / "cache", skip_bad=True)
    assert any(f"({skipped}" in note or f"{skipped} (" in note for note in task.notes)
    return task


def test_a_validation_film_among_the_training_films_is_refused(films, tmp_path):
    make_task(films, tmp_path / "cache")
    source = min((films / "valid" / "Cephalograms").iterdir())
    copy(source, films / "train" / "Cephalograms" / "001.png")
    said = rf"train.*001\.png: shows the same as .*{source.stem}.*validate on; remove one of them or use --skip-bad"
    task = refused_and_skipped(films, tmp_path, "leaked_film", said, "001")
    assert len(task.training) == 7
    assert len(task.validation) == 2


def test_a_film_that_is_twice_in_a_split_is_refused(films, tmp_path):
    folder = films / "train" / "Cephalograms"
    copy(folder / "001.png", folder / "003.png")
    said = r"003\.png: shows the same as .*001\.png"
    task = refused_and_skipped(films, tmp_path, "repeated_film", said, "003")
    assert len(task.training) == 7


def test_a_film_that_shows_nothing_is_refused(films, tmp_path):
    film = films / "train" / "Cephalograms" / "002.png"
    save(film, np.full_like(read_film(film), 90))
    task = refused_and_skipped(films, tmp_path, "blank_film", "nearly the same grey; replace the film", "002")
    assert len(task.training) == 7


def test_several_are_counted(films, tmp_path):
    for name in ("002", "004"):
        film = films / "train" / "Cephalograms" / f"{name}.png"
        save(film, np.full_like(read_film(film), 90))
    with pytest.raises(DataError, match=r"002.* 1 more are alike: `vramfit data check`"):
        make_task(films, tmp_path / "cache")


def test_copies_of_a_film_may_share_a_fold(films, tmp_path):
    folder = films / "train" / "Cephalograms"
    copy(folder / "001.png", folder / "003.png")
    assert len(open_task(films, tmp_path / "cache", fold=Fold(1, 2, 0)).training)


def test_a_film_in_no_split_is_refused(sample_set, tmp_path):
    folder = write_csv(sample_set, tmp_path / "csv")
    table = next(folder.glob("*.csv"))
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    rows[1][rows[0].index("split")] = "holdout"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    assert "unknown_split" in {found.kind for found in check_films(folder).findings}
    with pytest.raises(DataError, match=r"holdout.*correct it or use --skip-bad"):
        make_task(folder, tmp_path / "cache")
    assert any("Passed over" in note for note in open_task(folder, tmp_path / "cache", skip_bad=True).notes)

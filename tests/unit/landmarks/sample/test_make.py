import numpy as np
import pytest

from vramfit.errors import CannotWrite, UsageError
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.evaluation.metrics import (
    baseline_points,
    evaluate_points,
    mean_shape,
    pixel_sizes_mm,
    radial_errors_mm,
)
from vramfit.landmarks.sample.make import SampleMachine, make_sample

SYMBOLS = "A ANS B Me N Or Pog PNS Pn R S Ar Co Gn Go Po LPM LIT LMT UPM UIA UIT UMT LIA Li Ls N` Pog` Sn"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("made") / "set", films=24, height=160)


def test_layout_is_read_like_any_other(made):
    sets = {split: load_films(made, split) for split in ("train", "valid", "test")}
    assert {split: len(films) for split, films in sets.items()} == {"train": 16, "valid": 4, "test": 4}
    assert sets["train"].symbols == tuple(SYMBOLS.split())
    assert len({film.machine for film in sets["train"].films}) == 3
    assert len({film.pixel_size_mm for film in sets["train"].films}) == 3


def test_machines_can_be_named(tmp_path):
    one = SampleMachine("One", (193.5, 240.0), 1.0)
    films = load_films(make_sample(tmp_path / "set", films=4, height=240, machines=(one,)), "train").films
    assert {(film.machine, film.size) for film in films} == {("One", (194, 240))}


def test_films_vary_as_faces_do(made):
    train, test = load_films(made, "train"), load_films(made, "test")
    baseline = evaluate_points(baseline_points(mean_shape(train, (128, 128)), test, (128, 128)), test).overall.mre_mm
    assert 4 < baseline < 14


def test_raters_differ_by_about_a_millimetre(made):
    train = load_films(made, "train")
    junior, senior = (np.stack([film.raters[rater] for film in train.films]) for rater in ("junior", "senior"))
    apart = radial_errors_mm(junior, senior, pixel_sizes_mm(train))
    assert 0.7 < apart.mean() < 2.5


def test_landmarks_lie_on_what_is_drawn(made):
    """The nose tip has air in front of it and skin behind; the sella is darker than its rim."""
    for film in load_films(made, "train").films[:6]:
        pixels = read_film(film.path).astype(float)
        at = dict(zip(SYMBOLS.split(), film.points.astype(int), strict=True))
        step = round(5 / film.pixel_size_mm[0])
        x, y = at["Pn"]
        assert (
            pixels[y - 1 : y + 2, x - 2 * step - 1 : x - 2 * step + 2].mean() > pixels[y - 1 : y + 2, x + step :].mean()
        )


def test_same_seed_same_films(made, tmp_path):
    again = make_sample(tmp_path / "again", films=24, height=160)
    for first in sorted(made.rglob("*.*")):
        assert (again / first.relative_to(made)).read_bytes() == first.read_bytes()


def test_used_folder_is_left_alone(made):
    with pytest.raises(CannotWrite, match="not empty"):
        make_sample(made)


def test_stopped_half_way_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "set", films=3, height=64, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_too_few_films_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least 3"):
        make_sample(tmp_path / "set", films=2)

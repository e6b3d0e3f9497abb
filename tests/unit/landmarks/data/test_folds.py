"""Folds: every film validates once, whatever the order, and never beside its own copy."""

from collections import Counter
from dataclasses import replace

import pytest

from vramfit.errors import UsageError
from vramfit.landmarks.data.folds import deal, pooled
from vramfit.landmarks.data.formats import read_films


@pytest.fixture
def sets(sample_set):
    marked = read_films(sample_set)
    return [marked.of_split(split, "mean") for split in ("train", "valid")]


def test_a_film_keeps_its_fold_in_any_order(sets):
    films = pooled(sets).films
    folds = dict(zip([film.id for film in films], deal(films, 3, 0), strict=True))
    backwards = films[::-1]
    assert folds == dict(zip([film.id for film in backwards], deal(backwards, 3, 0), strict=True))
    sizes = Counter(folds.values())
    assert set(sizes) == {1, 2, 3}
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert any(deal(films, 3, seed) != deal(films, 3, 0) for seed in range(1, 5))


def test_copies_of_a_film_are_dealt_together(sets, tmp_path):
    film = sets[0].films[0]
    (tmp_path / "copy.png").write_bytes(film.path.read_bytes())
    films = [*sets[0].films, replace(film, id="copy", path=tmp_path / "copy.png")]
    for seed in range(5):
        dealt = deal(films, 3, seed)
        assert dealt[0] == dealt[-1]


def test_a_name_that_both_splits_have_stays_apart(sets):
    training, validation = sets
    same = replace(validation.films[0], id=training.films[0].id)
    pool = pooled([training, replace(validation, films=(same,))])
    assert len({film.id for film in pool.films}) == len(training) + 1
    assert f"valid-{same.id}" in {film.id for film in pool.films}


def test_more_folds_than_films_are_refused(sets):
    with pytest.raises(UsageError, match="--folds 99"):
        deal(sets[0].films, 99, 0)

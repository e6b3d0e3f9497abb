import os
import pickle
import threading
import time

import numpy as np
import pytest

from vramfit.errors import CannotWrite, DataError
from vramfit.landmarks.data import cache as module
from vramfit.landmarks.data.cache import FilmCache, default_folder
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.data.letterbox import Letterbox

SIZE = (64, 96)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the films that were decoded."""
    names = []

    def read(path):
        names.append(path.name)
        return read_film(path)

    monkeypatch.setattr(module, "read_film", read)
    return names


def test_images_are_the_letterboxed_films(film_folder, tmp_path):
    films = load_films(film_folder, "train")
    steps = []
    cache = FilmCache.open(films, SIZE, folder=tmp_path / "c", progress=lambda done, total: steps.append((done, total)))
    assert len(cache) == 6
    assert steps == [(number, 6) for number in range(1, 7)]
    for index, film in enumerate(films.films):
        expected = Letterbox.of(film.size, SIZE).apply(read_film(film.path))
        np.testing.assert_array_equal(cache.image(index), expected)
        np.testing.assert_allclose(cache.letterboxes[index].to_film(cache.points()[index]), film.points, atol=1e-9)


def test_second_run_decodes_nothing(film_folder, tmp_path, decoded):
    films = load_films(film_folder, "train")
    FilmCache.open(films, SIZE, folder=tmp_path / "c")
    assert len(decoded) == 6
    FilmCache.open(films, SIZE, folder=tmp_path / "c")
    assert len(decoded) == 6


def test_changed_film_is_decoded_anew(film_folder, tmp_path, decoded):
    FilmCache.open(load_films(film_folder, "train"), SIZE, folder=tmp_path / "c")
    os.utime(film_folder / "train/Cephalograms/001.png", ns=(1, 1))
    FilmCache.open(load_films(film_folder, "train"), SIZE, folder=tmp_path / "c")
    assert len(decoded) == 12


def test_another_image_size_is_another_cache(film_folder, tmp_path):
    films = load_films(film_folder, "train")
    first, second = (FilmCache.open(films, size, folder=tmp_path / "c") for size in (SIZE, (32, 32)))
    assert first.image(0).shape == SIZE
    assert second.image(0).shape == (32, 32)


@pytest.mark.parametrize("damage", [lambda data: data[:-5000], lambda data: b"", lambda data: b"junk" * 100])
def test_damaged_cache_is_built_again(film_folder, tmp_path, damage):
    films = load_films(film_folder, "train")
    cache = FilmCache.open(films, SIZE, folder=tmp_path / "c")
    before = np.array(cache.image(5))
    cache.path.write_bytes(damage(cache.path.read_bytes()))
    np.testing.assert_array_equal(FilmCache.open(films, SIZE, folder=tmp_path / "c").image(5), before)


def test_crash_while_building_leaves_nothing_half_made(film_folder, tmp_path, monkeypatch):
    def crash(self, film):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Letterbox, "apply", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            FilmCache.open(load_films(film_folder, "train"), SIZE, folder=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []
    assert len(FilmCache.open(load_films(film_folder, "train"), SIZE, folder=tmp_path / "c")) == 6


def test_two_builds_at_once_both_succeed(film_folder, tmp_path):
    films = load_films(film_folder, "train")
    caches = []
    threads = [
        threading.Thread(target=lambda: caches.append(FilmCache.open(films, SIZE, folder=tmp_path / "c")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({cache.path for cache in caches}) == 1
    assert len([cache.image(2) for cache in caches]) == 3
    assert not list((tmp_path / "c").glob("*.partial"))


def test_film_damaged_inside_is_named_or_skipped(film_folder, tmp_path):
    film = film_folder / "train/Cephalograms/003.png"
    content = film.read_bytes()
    film.write_bytes(content[:60] + b"\x00" * 400 + content[460:])
    films = load_films(film_folder, "train")
    for _ in range(2):
        with pytest.raises(DataError, match=r"003\.png"):
            FilmCache.open(films, SIZE, folder=tmp_path / "c")
        cache = FilmCache.open(films, SIZE, folder=tmp_path / "c", skip_bad=True)
        assert [film.id for film in cache.film_set.films] == ["001", "002", "004", "005", "006"]
        assert cache.film_set.skipped[0].id == "003"
        assert cache.image(2).any()


def test_full_disk_is_said_and_leaves_no_rest(film_folder, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(CannotWrite, match="No space left"):
        FilmCache.open(load_films(film_folder, "train"), SIZE, folder=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_pickles_as_a_name(film_folder, tmp_path):
    cache = FilmCache.open(load_films(film_folder, "train"), (512, 512), folder=tmp_path / "c")
    cache.image(0)
    packed = pickle.dumps(cache)
    assert len(packed) < 100_000
    np.testing.assert_array_equal(pickle.loads(packed).image(1), cache.image(1))


def test_month_old_caches_and_dead_halves_are_swept_and_nothing_else(film_folder, tmp_path):
    digest = "0123456789abcdef0123"
    old, half = tmp_path / f"train-64x96-{digest}.npy", tmp_path / f".train-64x96-{digest}.npy.abc.partial"
    new, foreign = tmp_path / f"valid-64x96-{digest}.npy", tmp_path / "my-own-results.npy"
    for file in (old, half, new, foreign):
        file.write_bytes(b"x")
    for file in (old, foreign):
        os.utime(file, (1, 1))
    os.utime(half, (time.time() - 24 * 3600,) * 2)
    FilmCache.open(load_films(film_folder, "test"), SIZE, folder=tmp_path)
    assert not old.exists()
    assert not half.exists()
    assert new.exists()
    assert foreign.exists()


def test_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path))
    assert default_folder() == tmp_path

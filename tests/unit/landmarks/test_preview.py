import numpy as np

from vramfit.landmarks.augment import preset
from vramfit.landmarks.cache import FilmCache
from vramfit.landmarks.formats import load_films
from vramfit.landmarks.preview import preview


def test_a_row_for_each_film_and_a_tile_for_each_draw(film_folder, tmp_path):
    cache = FilmCache.open(load_films(film_folder, "train").first(2), (96, 64), folder=tmp_path / "c")
    picture = preview(cache, preset("standard"), films=5, draws=3)
    assert picture.shape == (2 * 100, 4 * 68, 3)
    plain, changed = picture[:96, :64], picture[:96, 68:132]
    assert not np.array_equal(plain, changed)
    assert (plain != plain[..., :1]).any(), "the points are in colour"

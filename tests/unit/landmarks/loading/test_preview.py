import numpy as np

from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.loading.artefacts import KINDS
from vramfit.landmarks.loading.augment import EFFECTS, effects_of, preset
from vramfit.landmarks.loading.preview import preview, preview_effects


def test_a_row_for_each_film_and_a_tile_for_each_draw(film_folder, tmp_path):
    cache = FilmCache.open(load_films(film_folder, "train").first(2), (96, 64), folder=tmp_path / "c")
    picture = preview(cache, preset("standard"), films=5, draws=3)
    assert picture.shape == (2 * 100, 4 * 68, 3)
    plain, changed = picture[:96, :64], picture[:96, 68:132]
    assert not np.array_equal(plain, changed)
    assert (plain != plain[..., :1]).any(), "the points are in colour"


def test_every_effect_is_seen_alone_and_none_is_forgotten(film_folder, tmp_path):
    cache = FilmCache.open(load_films(film_folder, "train").first(1), (96, 64), folder=tmp_path / "c")
    effects = effects_of(preset("elastic"))
    assert set(effects) == set(EFFECTS)
    picture = preview_effects(cache, preset("elastic"), films=1)
    tiles = [picture[12:96, 68 * column : 68 * column + 64].astype(int) for column in range(len(effects) + 1)]
    for effect, tile in zip(effects, tiles[1:], strict=True):
        assert np.abs(tile - tiles[0]).max() > 8, f"{effect} is not to be seen"
        others = [other for other in tiles if other is not tile]
        assert all(not np.array_equal(tile, other) for other in others)


def test_a_preset_has_the_effects_that_it_names():
    assert set(effects_of(preset("standard"))) == set(EFFECTS) - {"elastic"}
    assert set(effects_of(preset("light"))) == set(EFFECTS) - {"elastic", "cutout"}
    assert effects_of(preset("none")) == {}


def test_each_artefact_is_seen_alone_where_any_may_come(film_folder, tmp_path):
    cache = FilmCache.open(load_films(film_folder, "train").first(1), (96, 64), folder=tmp_path / "c")
    how = preset("none", 0.01)
    assert list(effects_of(how)) == list(KINDS)
    picture = preview_effects(cache, how, films=1)
    tiles = [picture[12:96, 68 * column : 68 * column + 64].astype(int) for column in range(len(KINDS) + 1)]
    for kind, tile in zip(KINDS, tiles[1:], strict=True):
        assert np.abs(tile - tiles[0]).max() > 8, f"{kind} is not to be seen"

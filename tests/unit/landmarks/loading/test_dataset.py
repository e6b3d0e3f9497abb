import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vramfit.errors import UsageError
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.loading.artefacts import KINDS
from vramfit.landmarks.loading.augment import Augmentation, draw, move, preset
from vramfit.landmarks.loading.dataset import FilmDataset
from vramfit.landmarks.loading.photometric import NEUTRAL

SIZE = (96, 64)


@pytest.fixture
def cache(film_folder, tmp_path):
    return FilmCache.open(load_films(film_folder, "train"), SIZE, folder=tmp_path / "c")


def test_plain_sample_is_the_cached_film(cache):
    inputs, points, index = FilmDataset(cache)[0, 3]
    assert index == 3
    assert inputs["films"].dtype == torch.uint8
    np.testing.assert_array_equal(inputs["films"][0].numpy(), cache.image(3))
    assert inputs["photometric"].tolist() == list(NEUTRAL)
    np.testing.assert_allclose(points.numpy(), cache.points()[3], atol=1e-4)


@pytest.mark.parametrize("name", ["strong", "elastic"])
def test_points_move_with_the_pixels(name):
    image = np.zeros((96, 64), dtype=np.uint8)
    image[30:33, 20:23] = 255
    for number in range(5):
        change = draw(preset(name), SIZE, 3, number, "a")
        warped = change.of_image(image).astype(float)
        y, x = np.indices(warped.shape)
        centre = np.array([(x * warped).sum(), (y * warped).sum()]) / warped.sum()
        np.testing.assert_allclose(change.of_points(np.array([[21.0, 31.0]]), SIZE)[0], centre, atol=0.15)


def test_elastic_bends_beyond_the_affine_and_keeps_missing_points():
    change = draw(preset("elastic"), (512, 512), 0, 0, "a")
    points = np.array([[100.0, 100.0], [400.0, 300.0], [np.nan, np.nan]])
    bent = change.of_points(points, (512, 512))
    assert np.abs(bent[:2] - move(points[:2], change.matrix)).max() > 1
    assert np.isnan(bent[2]).all()


def test_randomness_is_a_function_of_seed_epoch_and_film():
    how = preset("standard")
    first = draw(how, SIZE, 1, 2, "017")
    again = draw(how, SIZE, 1, 2, "017")
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert first.photometric == again.photometric
    for other in ((2, 2, "017"), (1, 3, "017"), (1, 2, "018")):
        assert not np.array_equal(first.matrix, draw(how, SIZE, *other).matrix)


def test_limits_are_kept_and_nothing_is_flipped():
    how = Augmentation(rotation_degrees=10, scale=0.2, shift=0.05)
    for number in range(200):
        matrix = draw(how, SIZE, 0, number, "x").matrix
        scale = math.sqrt(np.linalg.det(matrix[:, :2]))
        assert 1 / 1.2 <= scale <= 1.2
        assert abs(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))) <= 10
        moved = move(np.array([31.5, 47.5]), matrix) - [31.5, 47.5]
        assert (np.abs(moved) <= [0.05 * 64, 0.05 * 96]).all()
    flipped = draw(Augmentation(flip_probability=1.0), SIZE, 0, 0, "x").matrix
    np.testing.assert_allclose(move(np.array([0.0, 5.0]), flipped), [63, 5])


def test_one_setting_changes_its_own_effect_only():
    plain = draw(preset("standard"), SIZE, 0, 0, "x")
    noisy = draw(Augmentation(noise=0.5, rotation_degrees=12, scale=0.15, shift=0.06), SIZE, 0, 0, "x")
    np.testing.assert_array_equal(plain.matrix, noisy.matrix)


def test_unknown_preset_is_refused():
    with pytest.raises(UsageError, match=r"'heavy'.*standard"):
        preset("heavy")


def collected(dataset, workers, order):
    loader = DataLoader(dataset, batch_size=2, sampler=order, num_workers=workers)
    return [(index.tolist(), inputs["films"].sum().item(), points.sum().item()) for inputs, points, index in loader]


def test_workers_change_nothing(cache):
    dataset = FilmDataset(cache, preset("standard"), seed=5)
    order = [(3, place) for place in (4, 0, 2, 1)]
    assert collected(dataset, 0, order) == collected(dataset, 2, order)


def with_artefacts(number, kinds=tuple(KINDS), chance=1.0):
    return draw(Augmentation(artefacts=chance, artefact_kinds=kinds), SIZE, 0, number, "x").artefacts


def test_artefacts_come_as_often_as_they_are_asked_for():
    drawn = [with_artefacts(number, chance=0.2) for number in range(1000)]
    counts = {kind: sum(kind in dict(one.drawn) for one in drawn if one) for kind in KINDS}
    # Four standard deviations of 1000 draws at 0.2.
    assert all(150 <= count <= 250 for count in counts.values()), counts
    assert all(one is None for one in (with_artefacts(number, chance=0.0) for number in range(20)))
    assert [kind for kind, _ in with_artefacts(0).drawn] == list(KINDS)


def test_artefacts_change_nothing_else_and_are_the_same_again():
    plain, changed = (draw(preset("standard", chance), SIZE, 1, 2, "017") for chance in (0.0, 0.9))
    np.testing.assert_array_equal(plain.matrix, changed.matrix)
    assert plain.photometric == changed.photometric
    film = np.full(SIZE, 120, dtype=np.uint8)
    np.testing.assert_array_equal(changed.artefacts.of(film), changed.artefacts.of(film))
    assert (film == 120).all(), "the cached film stays as it is"
    alone = dict(with_artefacts(3, ("metal",)).drawn)
    assert alone["metal"] == dict(with_artefacts(3).drawn)["metal"], "one kind does not move another"


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("metal", 0, 0.3), ("marker", 0, 0.02), ("collimation", 0, 0.17), ("negative", 1, 1)]
)
def test_each_artefact_changes_its_share_of_the_film(kind, least, most):
    film = np.full((320, 256), 120, dtype=np.uint8)
    changed = [with_artefacts(number, (kind,)).of(film) != film for number in range(40)]
    shares = [float(mask.mean()) for mask in changed]
    assert max(shares) > 0
    assert all(least <= share <= most for share in shares)


def test_a_collimated_film_is_dark_beyond_one_straight_edge():
    film = np.full((320, 256), 120, dtype=np.uint8)
    sides = set()
    for number in range(40):
        dark = with_artefacts(number, ("collimation",)).of(film) < 120
        corners = dark[0, 0], dark[0, -1], dark[-1, 0], dark[-1, -1]
        assert sum(map(int, corners)) <= 3, "never the whole film"
        # A half-plane: once dark along a row or column, dark to the end of it.
        assert (np.abs(np.diff(dark.astype(int), axis=0)).sum(axis=0) <= 1).all()
        assert (np.abs(np.diff(dark.astype(int), axis=1)).sum(axis=1) <= 1).all()
        sides.add(corners)
    assert {(True, True, False, False), (False, False, True, True)} <= sides
    assert {(True, False, True, False), (False, True, False, True)} <= sides


def test_the_letterboxs_border_stays_black_on_a_negative(film_folder, tmp_path):
    cache = FilmCache.open(load_films(film_folder, "train"), (96, 128), folder=tmp_path / "c")
    box = cache.letterboxes[0]
    assert box.pad[0] > 0
    image = FilmDataset(cache, Augmentation(artefacts=1.0, artefact_kinds=("negative",)))[0, 0][0]["films"][0].numpy()
    np.testing.assert_array_equal(box.cut(image), 255 - box.cut(cache.image(0)))
    assert not image[:, : box.pad[0]].any()
    assert not image[:, box.pad[0] + box.inner[0] :].any()

"""Faults planted in the points of heads are found and named exactly; odd jaws and missing points are let be."""

import numpy as np
import pytest

from vramfit.landmarks.check.shapes import find_oddities, relative_sizes
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.sample.make import make_sample


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """The points in mm of two raters on 60 films, 120x29x2, and the landmarks' symbols."""
    marked = read_films(make_sample(tmp_path_factory.mktemp("heads") / "set", films=60, height=160))
    symbols = [landmark.symbol for landmark in marked.landmarks]
    points = [
        annotation.points(symbols) * film.pixel_size_mm
        for film in marked.films
        for annotation in film.annotations.values()
    ]
    return np.array(points), symbols


def test_clean_heads_are_not_odd(heads):
    shapes, _ = heads
    found = find_oddities(shapes)
    assert (found.outlying, found.swapped, found.mirrored) == ((), (), ())


@pytest.mark.parametrize("pair", [("Go", "Me"), ("A", "B"), ("S", "N"), ("Or", "Po")])
def test_a_swap_is_found_and_nothing_else(heads, pair):
    shapes, symbols = heads
    first, second = sorted(map(symbols.index, pair))
    spoiled = shapes.copy()
    spoiled[7, [first, second]] = spoiled[7, [second, first]]
    found = find_oddities(spoiled)
    assert (found.swapped, found.outlying) == (((7, first, second),), ())


@pytest.mark.parametrize("symbol", ["S", "Go", "Pog"])
def test_a_point_2_cm_away_is_found_and_nothing_else(heads, symbol):
    shapes, symbols = heads
    place = symbols.index(symbol)
    spoiled = shapes.copy()
    spoiled[7, place] += [12, -16]
    found = find_oddities(spoiled)
    assert (found.swapped, found.outlying) == ((), ((7, place),))


def test_two_faults_of_one_head_are_both_named(heads):
    shapes, symbols = heads
    go, me, s = (symbols.index(symbol) for symbol in ("Go", "Me", "S"))
    spoiled = shapes.copy()
    spoiled[7, [go, me]] = spoiled[7, [me, go]]
    spoiled[7, s] += [25, 0]
    found = find_oddities(spoiled)
    assert (found.swapped, found.outlying) == (((7, *sorted((go, me))),), ((7, s),))


def test_a_long_jaw_is_not_odd(heads):
    shapes, symbols = heads
    jaw = [symbols.index(symbol) for symbol in ("Pog", "Pog`", "Gn", "Me", "B", "LIT", "LIA", "Li")]
    spoiled = shapes.copy()
    spoiled[7, jaw] += [6, 3]
    assert not find_oddities(spoiled).swapped
    assert len(find_oddities(spoiled).outlying) < 2


def test_missing_points_are_not_odd_and_do_not_hide_faults(heads):
    shapes, symbols = heads
    random = np.random.default_rng(0)
    holed = np.where(random.random(shapes.shape[:2])[..., None] < 0.3, np.nan, shapes)
    holed[:, 3] = np.nan
    holed[5] = np.nan
    place = symbols.index("Go")
    holed[7, place] = shapes[7, place] + [25, 0]
    assert find_oddities(holed).outlying == ((7, place),)
    sizes = relative_sizes(holed)
    assert np.isnan(sizes[5])
    assert np.delete(sizes, 5) == pytest.approx(1, abs=0.3)


def test_a_head_of_four_landmarks_is_judged_without_fuss(heads):
    shapes, _ = heads
    holed = shapes.copy()
    holed[7, 4:] = np.nan
    assert find_oddities(holed).outlying == ()
    holed[7, :4] = [[0, 0], [300, 5], [-80, 200], [10, -500]]
    assert all(row == 7 for row, _ in find_oddities(holed).outlying)


def test_sizes_are_relative_and_a_few_landmarks_tell_them_too(heads):
    shapes, _ = heads
    other = shapes.copy()
    other[4] *= 2
    other[4, 5:] = np.nan
    assert relative_sizes(other)[4] == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("few", [10, 15, 25])
def test_a_dozen_heads_alone_raise_no_alarm(heads, few):
    shapes, _ = heads
    for start in range(0, 60, 20):
        found = find_oddities(shapes[start::2][:few])
        assert (found.outlying, found.swapped) == ((), ())


def test_few_heads_are_not_judged(heads):
    shapes, _ = heads
    spoiled = shapes[:9].copy()
    spoiled[0, 0] += 50
    assert find_oddities(spoiled).outlying == ()

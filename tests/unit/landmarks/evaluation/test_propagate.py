"""The error of a measure is what landmarks that are moved at random make of it."""

import numpy as np
import pytest

from vramfit.landmarks.evaluation.measures import measured
from vramfit.landmarks.evaluation.propagate import measure_spreads
from vramfit.landmarks.sample.anatomy import draw_skull


@pytest.mark.parametrize("has_millimetres", [True, False])
def test_spreads_are_those_of_random_points(has_millimetres):
    random = np.random.default_rng(0)
    skull = draw_skull(random).points
    symbols, points = list(skull), np.stack(list(skull.values()))
    roots = random.normal(0, 0.4, (len(symbols), 2, 2))
    moments = roots @ roots.transpose(0, 2, 1)
    moved = points + np.einsum("kij,nkj->nki", roots, random.normal(0, 1, (20_000, len(symbols), 2)))
    values = measured(moved, symbols, has_millimetres=has_millimetres)
    spreads = measure_spreads(points, moments, symbols, has_millimetres=has_millimetres)
    assert spreads.keys() == values.keys()
    assert ("Wits" in spreads) == has_millimetres
    for name, spread in spreads.items():
        assert spread == pytest.approx(values[name].std(), rel=0.06), name

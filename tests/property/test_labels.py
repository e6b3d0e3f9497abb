"""Names beside points: inside the frame and never over each other, wherever points lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.report.labels import leader, place_labels

FRAME = (0.0, 0.0, 300.0, 200.0)
places = st.tuples(st.floats(-20, 320), st.floats(-20, 220)) | st.just((np.nan, np.nan))
sizes = st.tuples(st.floats(5, 80), st.floats(8, 20))


def cover(one, other):
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])


@settings(max_examples=60)
@given(st.lists(st.tuples(places, sizes), max_size=30))
def test_no_name_is_over_another_or_outside(named):
    points = np.array([place for place, _ in named]).reshape(-1, 2)
    taken = (100.0, 50.0, 160.0, 70.0)
    boxes = place_labels(points, [size for _, size in named], FRAME, gap=5, taken=[taken])
    assert len(boxes) == len(named)
    placed = [box for box in boxes if box]
    assert not any(np.isnan(box).any() for box in placed)
    for number, box in enumerate(placed):
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[2] <= 300
        assert box[3] <= 200
        assert not any(cover(box, other) for other in [taken, *placed[:number]])


def test_a_name_stands_right_of_its_point_and_above_where_there_is_room():
    (box,) = place_labels(np.array([[100.0, 100.0]]), [(30, 12)], FRAME, gap=5)
    assert box == (105, 83, 135, 95)


def test_a_name_covers_no_point_where_it_need_not():
    points = np.array([[100.0, 100.0], [115.0, 90.0]])
    boxes = place_labels(points[:1], [(30, 12)], FRAME, gap=5, among=points)
    assert not cover(boxes[0], (115, 90, 115.1, 90.1))


def test_a_crowd_keeps_the_names_of_those_that_come_first():
    points = np.full((40, 2), 100.0)
    boxes = place_labels(points, [(60, 15)] * 40, FRAME, gap=5, farthest=2)
    kept = [box is not None for box in boxes]
    assert kept[:4] == [True] * 4
    assert not kept[-1]


@pytest.mark.parametrize(("point", "end"), [((0, 0), (10, 20)), ((15, 100), (15, 40)), ((12, 30), (12, 30))])
def test_a_leader_ends_at_the_nearest_place_of_the_box(point, end):
    assert leader(point, (10, 20, 30, 40)) == end

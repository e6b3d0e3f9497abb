"""Charts: values lie where their axes say, ticks are round, and words are only words."""

import re

import pytest

from vramfit.report.plot import Chart, along, log_ticks, rows_chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-1.6, 1.6, [-1.5, -1, -0.5, 0, 0.5, 1, 1.5]),
        (0.3, 0.9, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (0, 7.8, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_ticks_are_round_and_within(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_batches_have_whole_ticks():
    assert ticks(0.5, 3.5, whole=True) == [1, 2, 3]
    assert ticks(0.5, 60.5, whole=True) == [10, 20, 30, 40, 50, 60]


def test_values_lie_between_the_margins():
    chart = Chart((0, 10), (0, 5), "x", width=100, height=80, left=20, right=10, top=5, bottom=15)
    assert chart.at(0, 0) == (20, 65)
    assert chart.at(10, 5) == (90, 5)
    assert chart.at(5, 2.5) == (55, 35)


def test_rows_go_down():
    chart = rows_chart(["A", "B", "C"], (0, 1), "x")
    heights = [chart.at(0, row)[1] for row in range(3)]
    assert heights[0] < heights[1] < heights[2]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])


def test_words_cannot_become_elements():
    chart = Chart((0, 1), (0, 1), "<x>", "<y>")
    names = chart.names([((0.5, 0.5), "<words>")], [])
    assert "&lt;words&gt;" in names
    layers = [chart.dot(0, 0, "first", "<dot> & '"), chart.level(0.5, "<level>"), names]
    drawing = chart.drawing(layers, "'<label>")
    assert re.findall(r"<(?:x|y|dot|level|words|label)>", drawing) == []
    assert "&lt;dot&gt; &amp; &#x27;" in drawing
    assert "aria-label='&#x27;&lt;label&gt;'" in drawing
    assert "&lt;row&gt;" in rows_chart(["<row>"], (0, 1), "x").drawing([], "", y_names=["<row>"])


def test_values_along_a_line_are_evenly_apart_and_end_with_it():
    assert along([(0, 0), (2, 4), (4, 4)], parts=2) == [(0, 0), (1, 2), (2, 4), (3, 4), (4, 4)]
    assert along([(1, 1)]) == [(1, 1)]
    assert along([]) == []


def test_logarithmic_axes_put_equal_factors_equally_far_apart():
    chart = Chart((1, 100), (1, 10_000), "x", logarithmic=True)
    left, middle, right = (chart.at(x, 1)[0] for x in (1, 10, 100))
    assert middle - left == pytest.approx(right - middle)
    low, high = (chart.at(1, y)[1] for y in (1, 10_000))
    assert chart.at(1, 100)[1] == pytest.approx((low + high) / 2)
    assert log_ticks(0.15, 12) == [0.2, 0.5, 1, 2, 5, 10]
    assert log_ticks(1, 10_000) == [1, 10, 100, 1000, 10_000]
    assert ">100</text>" in chart.drawing([], "label")

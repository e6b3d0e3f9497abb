"""Small charts as SVG text: lines, bands, dots and intervals; their colours are classes of `vramfit.report.page`."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

from vramfit.report.labels import Box, place_labels

Range = tuple[float, float]
Point = tuple[float, float]

_ROW = 19
_BROAD = 560  # pixels of a drawing, above which a narrow screen scrolls it: shrunk, its letters could not be read
# What a letter takes, in pixels of the drawing, where a narrow screen's letters are the largest.
_LETTER, _NAME_HIGH = 9.0, 17.0
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Chart:
    """A frame with two axes; `x` and `y` are the values that it spans.

    `left` and `right` are the pixels beside it, at least: they grow with the figures that stand there.

    On `logarithmic` axes equal factors are equally far apart; all values are then above 0.
    """

    x: Range
    y: Range
    x_label: str
    y_label: str = ""
    width: int = 520
    height: int = 300
    left: int = 46
    right: int = 12
    top: int = 26
    bottom: int = 40
    logarithmic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", max(self.left, round(8 + _widest(self._values_up()))))
        object.__setattr__(self, "right", max(self.right, round(_widest(self._values_across()) / 2)))

    def at(self, x: float, y: float) -> Point:
        """Where a value lies, in pixels of the drawing."""
        across, up = self._share(x, self.x), self._share(y, self.y)
        wide, high = self.width - self.left - self.right, self.height - self.top - self.bottom
        return self.left + across * wide, self.height - self.bottom - up * high

    def _share(self, value: float, span: Range) -> float:
        low, high = span
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def line(self, points: Iterable[Point], mark: str) -> str:
        """A line through values."""
        return f"<polyline class='line {mark}' points='{self._outline(points)}'/>"

    def band(self, points: Sequence[tuple[float, float, float]], mark: str) -> str:
        """The area between (x, low) and (x, high)."""
        outline = [(x, low) for x, low, _ in points] + [(x, high) for x, _, high in reversed(points)]
        return f"<polygon class='area {mark}' points='{self._outline(outline)}'/>"

    def dot(self, x: float, y: float, mark: str, title: str, *, hollow: bool = False, size: float = 4.5) -> str:
        """A dot that says what it is when pointed at."""
        across, down = self.at(x, y)
        shape = "ring" if hollow else "dot"
        return (
            f"<circle class='{shape} {mark}' cx='{across:.1f}' cy='{down:.1f}' r='{size:g}'>"
            f"<title>{escape(title)}</title></circle>"
        )

    def span(self, low: float, high: float, y: float, mark: str) -> str:
        """A level bar from low to high."""
        return self._straight(f"line {mark}", *self.at(low, y), *self.at(high, y))

    def rise(self, x: float, low: float, high: float, mark: str) -> str:
        """An upright bar from low to high."""
        return self._straight(f"line {mark}", *self.at(x, low), *self.at(x, high))

    def level(self, y: float, text: str) -> str:
        """A dashed line across, named above its left end, in `level_box`."""
        _, down = self.at(self.x[0], y)
        name = f"<text class='ink' x='{self.left + 6}' y='{down - 5:.1f}'>{escape(text)}</text>"
        return f"{self._straight('limit', self.left, down, self.width - self.right, down)}{name}"

    def level_box(self, y: float, text: str) -> Box:
        """What the name of a level covers, in pixels of the drawing."""
        _, down = self.at(self.x[0], y)
        return self.left + 6, down - 1 - _NAME_HIGH, self.left + 6 + _LETTER * len(text), down - 1

    def upright(self, x: float) -> str:
        """A dashed line from bottom to top."""
        across, _ = self.at(x, self.y[0])
        return self._straight("limit", across, self.top, across, self.height - self.bottom)

    def names(self, named: Sequence[tuple[Point, str]], among: Sequence[Point], taken: Sequence[Box] = ()) -> str:
        """Names beside values: none over another or over what is taken, and over few dots of the values `among`.

        A name that finds no room near its value is left out.
        """
        points = np.array([self.at(*value) for value, _ in named]).reshape(-1, 2)
        dots = np.array([self.at(*value) for value in among]).reshape(-1, 2)
        frame = self.left, self.top - _NAME_HIGH, self.width, self.height - self.bottom
        sizes = [(_LETTER * len(name), _NAME_HIGH) for _, name in named]
        boxes = place_labels(points, sizes, frame, gap=6, farthest=2, among=dots, taken=taken)
        return "".join(
            f"<text class='ink' x='{box[0]:.1f}' y='{box[3] - 4:.1f}'>{escape(name)}</text>"
            for (_, name), box in zip(named, boxes, strict=True)
            if box is not None
        )

    def drawing(self, layers: Iterable[str], label: str, *, whole_x: bool = False, y_names: Sequence[str] = ()) -> str:
        """The chart; `whole_x` keeps x to whole numbers, `y_names` are named rows 0, 1, ... in place of values of y."""
        frame = [*self._across(whole_x), *(self._rows(y_names) if y_names else self._up())]
        drawn = (
            f"<svg viewBox='0 0 {self.width} {self.height}' style='max-width:{1.15 * self.width:.0f}px' role='img' "
            f"aria-label='{escape(label)}'>"
            f"{''.join(frame)}{''.join(layers)}</svg>"
        )
        return f"<div class='scrolls'>{drawn}</div>" if self.width > _BROAD else drawn

    def _across(self, whole: bool) -> Iterable[str]:
        floor = self.height - self.bottom
        for value in self._values_across(whole):
            x, _ = self.at(value, self.y[0])
            yield self._straight("grid", x, self.top, x, floor)
            yield f"<text x='{x:.1f}' y='{floor + 16}' text-anchor='middle'>{value:g}</text>"
        end = self.width - self.right
        yield self._straight("axis", self.left, floor, end, floor)
        yield f"<text x='{end}' y='{self.height - 5}' text-anchor='end'>{escape(self.x_label)}</text>"

    def _up(self) -> Iterable[str]:
        for value in self._values_up():
            _, y = self.at(self.x[0], value)
            yield self._straight("grid", self.left, y, self.width - self.right, y)
            yield f"<text x='{self.left - 7}' y='{y + 4:.1f}' text-anchor='end'>{value:g}</text>"
        yield f"<text x='0' y='14'>{escape(self.y_label)}</text>"

    def _values_across(self, whole: bool = False) -> list[float]:
        return log_ticks(*self.x) if self.logarithmic else ticks(*self.x, whole=whole)

    def _values_up(self) -> list[float]:
        """The values of y that are written beside the chart; none on a chart of rows, whose y goes down."""
        low, high = self.y
        return [] if low >= high else log_ticks(low, high) if self.logarithmic else ticks(low, high)

    def _rows(self, names: Sequence[str]) -> Iterable[str]:
        for row, name in enumerate(names):
            _, y = self.at(self.x[0], row)
            yield f"<text class='ink' x='{self.left - 10}' y='{y + 4:.1f}' text-anchor='end'>{escape(name)}</text>"

    @staticmethod
    def _straight(mark: str, x1: float, y1: float, x2: float, y2: float) -> str:
        return f"<line class='{mark}' x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'/>"

    def _outline(self, points: Iterable[Point]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)


def _widest(values: Iterable[float]) -> float:
    """Pixels of the longest figure."""
    return max((_LETTER * len(f"{value:g}") for value in values), default=0.0)


def along(points: Sequence[Point], parts: int = 6) -> list[Point]:
    """Values on the line through others, `parts` from one to the next: what names should not cover, either."""
    steps = [(first, second, part / parts) for first, second in pairwise(points) for part in range(parts)]
    return [(a + share * (c - a), b + share * (d - b)) for (a, b), (c, d), share in steps] + list(points[-1:])


def rows_chart(names: Sequence[str], x: Range, x_label: str) -> Chart:
    """A chart with a row for each name, the first on top: row r lies at y = r."""
    left = round(14 + _LETTER * max((len(name) for name in names), default=0))
    high = 46 + _ROW * len(names)
    return Chart(x, (len(names) - 0.5, -0.5), x_label, height=high, left=left, top=6)


def ticks(low: float, high: float, *, most: int = 8, whole: bool = False) -> list[float]:
    """Round values from low to high, at most so many: 1, 2, 2.5 or 5 times a power of ten apart."""
    apart = (high - low) / most
    power = 10.0 ** math.floor(math.log10(apart))
    step = next(factor * power for factor in _STEPS if factor * power >= apart * (1 - 1e-9))
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 10) + 0.0 for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times every power of ten from low to high; over more than three powers the powers alone."""
    factors = (1, 2, 5) if high / low <= 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in values if low <= value <= high]

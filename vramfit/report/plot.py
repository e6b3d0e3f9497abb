"""Small charts as SVG text: lines, bands, dots and intervals; their colours are classes of `vramfit.report.page`."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Range = tuple[float, float]
Point = tuple[float, float]

_ROW = 19
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Chart:
    """A frame with two axes; `x` and `y` are the values that it spans, `left` the pixels for the labels of y.

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
    top: int = 22
    bottom: int = 40
    logarithmic: bool = False

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
        """A dashed line across, named above its left end."""
        _, down = self.at(self.x[0], y)
        name = f"<text class='ink' x='{self.left + 6}' y='{down - 5:.1f}'>{escape(text)}</text>"
        return f"{self._straight('limit', self.left, down, self.width - self.right, down)}{name}"

    def upright(self, x: float) -> str:
        """A dashed line from bottom to top."""
        across, _ = self.at(x, self.y[0])
        return self._straight("limit", across, self.top, across, self.height - self.bottom)

    def words(self, x: float, y: float, text: str, *, above: float = 9) -> str:
        """Words centred so many pixels over a value, under it where fewer than 0; moved in from the edges."""
        across, down = self.at(x, y)
        near = "start" if across < self.left + 40 else "end" if across > self.width - self.right - 40 else "middle"
        return f"<text class='ink' x='{across:.1f}' y='{down - above:.1f}' text-anchor='{near}'>{escape(text)}</text>"

    def drawing(self, layers: Iterable[str], label: str, *, whole_x: bool = False, y_names: Sequence[str] = ()) -> str:
        """The chart; `whole_x` keeps x to whole numbers, `y_names` are named rows 0, 1, ... in place of values of y."""
        frame = [*self._across(whole_x), *(self._rows(y_names) if y_names else self._up())]
        return (
            f"<svg viewBox='0 0 {self.width} {self.height}' style='max-width:{1.15 * self.width:.0f}px' role='img' "
            f"aria-label='{escape(label)}'>"
            f"{''.join(frame)}{''.join(layers)}</svg>"
        )

    def _across(self, whole: bool) -> Iterable[str]:
        floor = self.height - self.bottom
        for value in log_ticks(*self.x) if self.logarithmic else ticks(*self.x, whole=whole):
            x, _ = self.at(value, self.y[0])
            yield self._straight("grid", x, self.top, x, floor)
            yield f"<text x='{x:.1f}' y='{floor + 16}' text-anchor='middle'>{value:g}</text>"
        end = self.width - self.right
        yield self._straight("axis", self.left, floor, end, floor)
        yield f"<text x='{end}' y='{self.height - 5}' text-anchor='end'>{escape(self.x_label)}</text>"

    def _up(self) -> Iterable[str]:
        for value in log_ticks(*self.y) if self.logarithmic else ticks(*self.y):
            _, y = self.at(self.x[0], value)
            yield self._straight("grid", self.left, y, self.width - self.right, y)
            yield f"<text x='{self.left - 7}' y='{y + 4:.1f}' text-anchor='end'>{value:g}</text>"
        yield f"<text x='0' y='12'>{escape(self.y_label)}</text>"

    def _rows(self, names: Sequence[str]) -> Iterable[str]:
        for row, name in enumerate(names):
            _, y = self.at(self.x[0], row)
            yield f"<text class='ink' x='{self.left - 10}' y='{y + 4:.1f}' text-anchor='end'>{escape(name)}</text>"

    @staticmethod
    def _straight(mark: str, x1: float, y1: float, x2: float, y2: float) -> str:
        return f"<line class='{mark}' x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'/>"

    def _outline(self, points: Iterable[Point]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)


def rows_chart(names: Sequence[str], x: Range, x_label: str) -> Chart:
    """A chart with a row for each name, the first on top: row r lies at y = r."""
    left = 14 + 7 * max((len(name) for name in names), default=0)
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

"""The worst films as pictures: the film, where its landmarks are, and where the network saw them.

K landmarks. The film is a JPEG within the page; what is drawn on it is SVG, which stays sharp in print.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.data.films import Film, Unit
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.evaluation.evaluate import Judged
from vramfit.landmarks.report.evaluation import mm
from vramfit.landmarks.report.film_names import SCREEN, film_names

_LONGEST_SIDE, _QUALITY = 720, 82
_MARGIN = 0.12
_NAMED = 4

STYLE = """
.cases{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:1.4rem;align-items:start}
.cases svg{background:#000}.cases figcaption b{color:var(--ink)}
.off{stroke:#ffb000;stroke-opacity:.75}.truth{fill:none;stroke:#56c8ff}.found{fill:#ffb000}
i.truth,i.found{height:.7em;width:.7em;border-radius:50%;vertical-align:-.02em}
@media print{.cases{grid-template-columns:1fr 1fr 1fr}}
i.truth{border:2px solid #2a9fd6;background:none}i.found{background:#e69a00}
"""
LEGEND = (("truth", "where it is"), ("found", "where the network saw it"))


@dataclass(frozen=True)
class _View:
    """The part of a film that is shown: from `corner`, (x, y) film pixels, `size` of them, `scale` pixels for each."""

    corner: NDArray[np.int64]
    size: NDArray[np.int64]
    scale: NDArray[np.float64]

    @classmethod
    def around(cls, points: NDArray[np.float64], film_size: tuple[int, int]) -> Self:
        """The landmarks with some of the film around them; all of it where there are none."""
        whole, known = np.array(film_size), points[np.isfinite(points).all(axis=1)]
        low, high = (known.min(axis=0), known.max(axis=0)) if len(known) else (np.zeros(2), whole.astype(np.float64))
        margin = _MARGIN * float((high - low).max())
        corner = np.clip(np.floor(low - margin), 0, whole - 1).astype(np.int64)
        size = np.clip(np.ceil(high + margin), corner + 1, whole).astype(np.int64) - corner
        shown = np.maximum(1, np.round(size * min(1.0, _LONGEST_SIDE / size.max())))
        return cls(corner, size, shown / size)

    @property
    def shown(self) -> tuple[int, int]:
        """(width, height) of the picture."""
        width, height = np.round(self.size * self.scale)
        return int(width), int(height)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Film pixels, whose centres are whole numbers, to the picture, whose corner is 0."""
        placed: NDArray[np.float64] = (points + 0.5 - self.corner) * self.scale
        return placed

    def jpeg(self, pixels: NDArray[np.uint8]) -> bytes:
        """The picture of a film."""
        import cv2

        (left, top), (width, height) = self.corner, self.size
        small = cv2.resize(pixels[top : top + height, left : left + width], self.shown, interpolation=cv2.INTER_AREA)
        return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())


def worst_cases(judged: Judged, most: int) -> str:
    """The films with the largest MRE, worst first, each as a figure."""
    means = judged.report.film_mre
    known = sorted(((mre, name) for name, mre in means.items() if mre is not None), reverse=True)[:most]
    places = {film.id: place for place, film in enumerate(judged.films.films)}
    figures = (_case(judged, places[name]) for _, name in known)
    return f"<div class='cases'>{''.join(figures)}</div>"


def _case(judged: Judged, place: int) -> str:
    film, report, symbols = judged.films.films[place], judged.report, judged.films.symbols
    errors = report.errors[film.id]
    largest = ", ".join(f"{symbols[place]} {mm(errors[place])}" for place in _order(errors)[:_NAMED])
    said = f"MRE {mm(report.film_mre[film.id])} {report.unit}; largest {largest}."
    machine = f", {film.machine}" if len(report.evaluation.machines) > 1 else ""
    drawing = film_drawing(film, judged.points[place], symbols, errors, report.unit)
    return (
        f"<figure>{drawing}<figcaption><b>{escape(film.id)}</b>{escape(machine)}: {escape(said)}</figcaption></figure>"
    )


def film_drawing(
    film: Film, found: NDArray[np.float64], symbols: Sequence[str], errors: Sequence[float | None], unit: Unit
) -> str:
    """The part of a film that has landmarks, with truth and prediction, as SVG.

    Args:
        film: the film and its true points.
        found: Kx2 predicted points in pixels of the film.
        symbols: K names.
        errors: K radial errors in `unit`, None where missing; the largest are named on the film.
        unit: mm or px.

    """
    known = np.array([error is not None for error in errors])
    view = _View.around(np.concatenate([film.points[known], found[known]]), film.size)
    width, height = view.shown
    pixels = b64encode(view.jpeg(read_film(film.path))).decode()
    picture = f"<image href='data:image/jpeg;base64,{pixels}' width='{width}' height='{height}'/>"
    marks = _marks(view.place(film.points), view.place(found), symbols, errors, frame=view.shown, unit=unit)
    label = escape(f"Film {film.id} with true and predicted landmarks", quote=True)
    return f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{label}'>{picture}{''.join(marks)}</svg>"


def _marks(
    truth: NDArray[np.float64],
    found: NDArray[np.float64],
    symbols: Sequence[str],
    errors: Sequence[float | None],
    *,
    frame: tuple[int, int],
    unit: Unit,
) -> Iterator[str]:
    """What is drawn over a film; `frame` is (width, height) of the drawing."""
    order, size = _order(errors), frame[0] / SCREEN
    for place in reversed(order):
        (x, y), (a, b) = truth[place], found[place]
        yield (
            f"<g><title>{escape(symbols[place])}: {mm(errors[place])} {unit}</title>"
            f"<line class='off' x1='{x:.1f}' y1='{y:.1f}' x2='{a:.1f}' y2='{b:.1f}' stroke-width='{1.2 * size:.2f}'/>"
            f"<circle class='truth' cx='{x:.1f}' cy='{y:.1f}' r='{3.4 * size:.2f}' stroke-width='{1.3 * size:.2f}'/>"
            f"<circle class='found' cx='{a:.1f}' cy='{b:.1f}' r='{2.2 * size:.2f}'/></g>"
        )
    yield from film_names([symbols[place] for place in order[:_NAMED]], found[order[:_NAMED]], frame, size, found)


def _order(errors: Sequence[float | None]) -> list[int]:
    """Places of known errors, the largest first."""
    known = [(error, place) for place, error in enumerate(errors) if error is not None]
    return [place for _, place in sorted(known, reverse=True)]

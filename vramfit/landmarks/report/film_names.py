"""Symbols of landmarks on a film that is drawn as SVG."""

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from vramfit.report.labels import leader, place_labels

SCREEN = 320  # pixels that a film is wide on a screen, about
_LETTER = 9  # pixels of a screen that a letter takes, at most

# Of a page that shows such films.
STYLE = (
    "svg text.name{fill:#fff;stroke:#000;stroke-opacity:.75;paint-order:stroke;stroke-linejoin:round}"
    ".leader{stroke:#fff;stroke-opacity:.7}"
)


def film_names(
    symbols: Sequence[str],
    points: NDArray[np.float64],
    frame: tuple[int, int],
    size: float,
    among: NDArray[np.float64],
) -> Iterator[str]:
    """Symbols beside their points, none over another, with a line where they stand away; some may find no room.

    Args:
        symbols: N names, those that matter most first.
        points: Nx2, in pixels of the drawing; names of those outside stand at its edge.
        frame: (width, height) of the drawing.
        size: a pixel of the screen, about, in pixels of the drawing.
        among: Mx2 points that names should not cover.

    """
    within = np.clip(points, 0, np.array(frame))
    sizes = [((3 + _LETTER * len(symbol)) * size, 14 * size) for symbol in symbols]
    boxes = place_labels(within, sizes, (0, 0, *frame), gap=4 * size, among=among)
    for symbol, point, box in zip(symbols, within.tolist(), boxes, strict=True):
        if box is not None:
            a, b = leader(point, box)
            if math.dist(point, (a, b)) > 8 * size:
                line = f"x1='{point[0]:.1f}' y1='{point[1]:.1f}' x2='{a:.1f}' y2='{b:.1f}'"
                yield f"<line class='leader' {line} stroke-width='{0.8 * size:.1f}'/>"
            at = f"x='{box[0] + 1.5 * size:.1f}' y='{box[3] - 3 * size:.1f}'"
            style = f"font-size:{12 * size:.1f}px;stroke-width:{3 * size:.1f}px"
            yield f"<text class='name' {at} style='{style}'>{escape(symbol)}</text>"

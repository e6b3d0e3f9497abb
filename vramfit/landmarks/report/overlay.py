"""Points drawn on their film, as a PNG.

K landmarks. The colour of a point is its expected error beside the median one in calibration: green up to that, red
from three times as much, and a cross where the heatmap says nothing; a circle is the region that holds it with 90 %
coverage. Of a network that was not calibrated the colour is the confidence: red at 0, green at 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.model.calibration import Certainty
from vramfit.report.labels import leader, place_labels

_LONGEST_SIDE = 1600
# Times the median expected error.
_RED = 3.0
_SHOWN_BELOW = 0.95
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def overlay(
    film: NDArray[np.uint8],
    points: NDArray[np.float64],
    symbols: Sequence[str],
    confidence: NDArray[np.float64],
    certainty: Certainty | None = None,
) -> bytes:
    """A PNG of a film with its landmarks and their symbols.

    Args:
        film: grey uint8 HxW; drawn at most 1600 pixels long, however large it is.
        points: Kx2, (x, y) in pixels of the film; those that are NaN are not drawn.
        symbols: K names.
        confidence: K values, 0 to 1.
        certainty: in pixels of the film; None from a network that was not calibrated.

    """
    import cv2

    picture, scale = _canvas(film)
    size = max(picture.shape) / 800
    share = confidence if certainty is None else 1 - (certainty.relative - 1) / (_RED - 1)
    shown = (points + 0.5) * scale - 0.5
    for place, point in enumerate(shown):
        if np.isfinite(point).all():
            colour = _colour(float(share[place]))
            _mark(picture, point, colour, size)
            if certainty is not None:
                _circle(picture, point, certainty.radii[_shown(certainty), place] * float(scale.mean()), colour)
                if not certainty.evidence[place]:
                    _cross(picture, point, size)
    _name(picture, shown, symbols, size)
    return bytes(cv2.imencode(".png", picture)[1].tobytes())


def _shown(certainty: Certainty) -> int:
    """Which of the levels is drawn: the highest below 95 %, whose regions do not cover half a face."""
    return max((place for place, level in enumerate(certainty.levels) if level < _SHOWN_BELOW), default=0)


def _canvas(film: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The film in colour, no larger than the longest side allowed, and (x, y) pixels of it to a pixel of the film."""
    import cv2

    height, width = film.shape
    shrink = min(1.0, _LONGEST_SIDE / max(height, width))
    inner = max(1, round(width * shrink)), max(1, round(height * shrink))
    grey = cv2.resize(film, inner, interpolation=cv2.INTER_AREA) if shrink < 1 else film
    return np.stack([grey] * 3, axis=2), np.array(inner) / np.array([width, height])


def _mark(picture: NDArray[np.uint8], point: NDArray[np.float64], colour: tuple[int, int, int], size: float) -> None:
    import cv2

    radius = max(2, round(3 * size))
    cv2.circle(picture, _pixel(point), radius, _BLACK, max(1, round(size)) + 1, cv2.LINE_AA)
    cv2.circle(picture, _pixel(point), radius, colour, -1, cv2.LINE_AA)


def _name(picture: NDArray[np.uint8], points: NDArray[np.float64], symbols: Sequence[str], size: float) -> None:
    """Symbols beside their points, none over another, with a line to the point where they stand away from it."""
    import cv2

    # OpenCV's letters are ASCII alone.
    names = [symbol.encode("ascii", "replace").decode() for symbol in symbols]
    extents = [cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, 3) for name in names]
    sizes = [(width + 2.0, height + below + 2.0) for (width, height), below in extents]
    gap, frame = 4 * size, (0, 0, picture.shape[1], picture.shape[0])
    for name, point, box, (_, below) in zip(
        names, points, place_labels(points, sizes, frame, gap=gap), extents, strict=True
    ):
        if box is None:
            continue
        end = np.array(leader(point.tolist(), box))
        if np.hypot(*(point - end)) > 2 * gap:
            cv2.line(picture, _pixel(point), _pixel(end), _WHITE, 1, cv2.LINE_AA)
        place = round(box[0]) + 1, round(box[3]) - 1 - below
        for ink, width in ((_BLACK, 3), (_WHITE, 1)):
            cv2.putText(picture, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, ink, width, cv2.LINE_AA)


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _circle(
    picture: NDArray[np.uint8], point: NDArray[np.float64], radius: float, colour: tuple[int, int, int]
) -> None:
    import cv2

    cv2.circle(picture, _pixel(point), max(1, round(radius)), colour, 1, cv2.LINE_AA)


def _cross(picture: NDArray[np.uint8], point: NDArray[np.float64], size: float) -> None:
    import cv2

    length, wide = round(16 * size), max(2, round(2 * size))
    cv2.drawMarker(picture, _pixel(point), _colour(0.0), cv2.MARKER_TILTED_CROSS, length, wide, cv2.LINE_AA)


def _colour(confidence: float) -> tuple[int, int, int]:
    """Blue, green and red, as OpenCV orders them."""
    share = min(1.0, max(0.0, confidence))
    return 0, round(255 * min(1.0, 2 * share)), round(255 * min(1.0, 2 - 2 * share))

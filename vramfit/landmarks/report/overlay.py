"""Points drawn on their film, as a PNG.

K landmarks. The colour of a point is its confidence: red at 0, green at 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LONGEST_SIDE = 1600
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def overlay(
    film: NDArray[np.uint8],
    points: NDArray[np.float64],
    symbols: Sequence[str],
    confidence: NDArray[np.float64],
) -> bytes:
    """A PNG of a film with its landmarks and their symbols.

    Args:
        film: grey uint8 HxW; drawn at most 1600 pixels long, however large it is.
        points: Kx2, (x, y) in pixels of the film; those that are NaN are not drawn.
        symbols: K names.
        confidence: K values, 0 to 1.

    """
    import cv2

    picture, scale = _canvas(film)
    size = max(picture.shape) / 800
    for point, symbol, sure in zip((points + 0.5) * scale - 0.5, symbols, confidence, strict=True):
        if np.isfinite(point).all():
            _mark(picture, point, symbol, _colour(float(sure)), size)
    return bytes(cv2.imencode(".png", picture)[1].tobytes())


def _canvas(film: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The film in colour, no larger than the longest side allowed, and (x, y) pixels of it to a pixel of the film."""
    import cv2

    height, width = film.shape
    shrink = min(1.0, _LONGEST_SIDE / max(height, width))
    inner = max(1, round(width * shrink)), max(1, round(height * shrink))
    grey = cv2.resize(film, inner, interpolation=cv2.INTER_AREA) if shrink < 1 else film
    return np.stack([grey] * 3, axis=2), np.array(inner) / np.array([width, height])


def _mark(
    picture: NDArray[np.uint8], point: NDArray[np.float64], symbol: str, colour: tuple[int, int, int], size: float
) -> None:
    import cv2

    x, y = round(float(point[0])), round(float(point[1]))
    radius = max(2, round(3 * size))
    cv2.circle(picture, (x, y), radius, _BLACK, max(1, round(size)) + 1, cv2.LINE_AA)
    cv2.circle(picture, (x, y), radius, colour, -1, cv2.LINE_AA)
    # OpenCV's letters are ASCII alone.
    name, place = symbol.encode("ascii", "replace").decode(), (x + 2 * radius, y - radius)
    for ink, width in ((_BLACK, 3), (_WHITE, 1)):
        cv2.putText(picture, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, ink, width, cv2.LINE_AA)


def _colour(confidence: float) -> tuple[int, int, int]:
    """Blue, green and red, as OpenCV orders them."""
    share = min(1.0, max(0.0, confidence))
    return 0, round(255 * min(1.0, 2 * share)), round(255 * min(1.0, 2 - 2 * share))

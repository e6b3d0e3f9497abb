"""A validation film as a small picture: truth and prediction on it, and its heatmaps beside it."""

import numpy as np
from numpy.typing import NDArray

from vramfit.training.listeners import Example

_LONGEST_SIDE, _QUALITY = 384, 80
# Blue, green, red, as OpenCV orders them; the same as in the report of an evaluation.
_TRUTH, _FOUND = (255, 200, 86), (0, 176, 255)

Picture = NDArray[np.uint8]


def example_picture(example: Example) -> tuple[bytes, tuple[int, int]]:
    """A JPEG of two pictures side by side, and its (width, height): some 20 kB whatever the film's size."""
    import cv2

    height, width = example.image.shape
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.resize(example.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    both = np.concatenate([_with_points(grey, example, scale), _with_heat(grey, example)], axis=1)
    _write(both, "no point is known" if example.error_mm is None else f"{example.error_mm:.2f} mm")
    jpeg = cv2.imencode(".jpg", both, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return bytes(jpeg.tobytes()), (both.shape[1], both.shape[0])


def _with_points(grey: Picture, example: Example, scale: float) -> Picture:
    """Rings where landmarks are, dots where the network saw them, and a line between the two."""
    import cv2

    picture = np.stack([grey] * 3, axis=2)
    for truth, found in zip((example.truth + 0.5) * scale - 0.5, (example.found + 0.5) * scale - 0.5, strict=True):
        if not np.isfinite(truth).all():
            continue
        there, seen = _pixel(truth), _pixel(found)
        cv2.line(picture, there, seen, _FOUND, 1, cv2.LINE_AA)
        cv2.circle(picture, there, 3, _TRUTH, 1, cv2.LINE_AA)
        cv2.circle(picture, seen, 1, _FOUND, -1, cv2.LINE_AA)
    return picture


def _with_heat(grey: Picture, example: Example) -> Picture:
    """The film darkened, and in colour where some heatmap is high."""
    import cv2

    size = grey.shape[1], grey.shape[0]
    heat = cv2.resize(example.heatmap, size, interpolation=cv2.INTER_LINEAR)[..., None]
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)
    dark = 0.5 * np.stack([grey] * 3, axis=2)
    mixed: Picture = np.round(dark * (1 - heat) + colours * heat).astype(np.uint8)
    return mixed


def _write(picture: Picture, words: str) -> None:
    import cv2

    for ink, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, words, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, width, cv2.LINE_AA)


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    # Far outside the picture OpenCV's fixed-point numbers overflow.
    x, y = np.clip(np.round(point), -10_000, 10_000)
    return int(x), int(y)

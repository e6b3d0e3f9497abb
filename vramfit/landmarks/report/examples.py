"""A validation film as a small picture: truth and prediction on it, and its heatmaps beside it.

K landmarks, H W image pixels, h w heatmap pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.data.films import Unit
from vramfit.training.listeners import Example

_LONGEST_SIDE = 384
# Blue, green, red, as OpenCV orders them; the same as in the report of an evaluation.
_TRUTH, _FOUND = (255, 200, 86), (0, 176, 255)

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class FilmExample:
    """A validation film as the network saw it.

    `image` uint8 HxW; `truth` and `found` float64 Kx2, (x, y) in its pixels, NaN where missing; `heatmap` float32 hxw,
    0 to 1, the highest of all landmarks; `error` the mean error in `unit`, None where nothing is known.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.float64]
    found: NDArray[np.float64]
    heatmap: NDArray[np.float32]
    error: float | None
    unit: Unit = "mm"


def example_of(example: FilmExample) -> Example:
    """Two pictures side by side, at most 384 pixels high or each that wide."""
    import cv2

    height, width = example.image.shape
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.resize(example.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    both = np.concatenate([_with_points(grey, example, scale), _with_heat(grey, example)], axis=1)
    _write(both, "no point is known" if example.error is None else f"{example.error:.2f} {example.unit}")
    return Example(f"films/{example.name}", both[..., ::-1])


def _with_points(grey: Picture, example: FilmExample, scale: float) -> Picture:
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


def _with_heat(grey: Picture, example: FilmExample) -> Picture:
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

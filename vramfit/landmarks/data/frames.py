"""Frames of one clip, which look alike by nature: told from copies of one picture by the landmarks that moved.

K landmarks. Where two films look alike and a landmark has another place on each, either the one who marked them was not
sure, or what they show has moved. The pictures tell: of a copy, the first film's surroundings of a landmark are found
at the same place of the other, of a moved thing at the landmark's new place.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data.image import read_film

Array = NDArray[np.float64]
Positions = Mapping[str, tuple[float, float]]

# In parts of the film's diagonal: nearer is the same place, farther is more than two raters are ever apart.
_MOVED, _FAR = 0.002, 0.012
_SIDE = 512
_REACH, _STEP = 6, 2.0
_SLOW = 12.0


def moved_between(first: Path, positions: Positions, second: Path, others: Positions) -> bool:
    """Whether two films that look alike show the same thing moved, by the (x, y) pixels of their landmarks.

    False where they share no landmark or cannot be read: then only their likeness is known.
    """
    both = positions.keys() & others.keys()
    shared = [symbol for symbol in both if np.isfinite([positions[symbol], others[symbol]]).all()]
    try:
        one, other = (_view(path, path.stat().st_mtime_ns) for path in (first, second))
    except (DataError, OSError):
        return False
    here, there = (
        np.array([places[symbol] for symbol in shared], dtype=np.float64).reshape(-1, 2)
        for places in (positions, others)
    )
    here, there = (here + 0.5) / one.size, (there + 0.5) / other.size
    apart = np.linalg.norm((here - there) * one.size, axis=1) / np.linalg.norm(one.size)
    moved = apart > _MOVED
    if not moved.any():
        return False
    if np.median(apart) > _FAR:
        return True
    pictures = one.around(here[moved])
    stayed, followed = (_likeness(pictures, other.around(places[moved])) for places in (here, there))
    return followed > stayed


class _View:
    """A film at most `_SIDE` pixels long, without its slow changes of grey; `size` is its own (width, height)."""

    def __init__(self, film: NDArray[np.uint8]) -> None:
        import cv2

        height, width = film.shape
        self.size = np.array([width, height], dtype=np.float64)
        scale = min(1.0, _SIDE / max(height, width))
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(film, shape, interpolation=cv2.INTER_AREA).astype(np.float32)
        self.pixels = small - cv2.GaussianBlur(small, (0, 0), _SLOW)

    def around(self, fractions: Array) -> NDArray[np.float32]:
        """The surroundings of places Kx2, in fractions of the film, as KxP values."""
        import cv2

        steps = np.arange(-_REACH, _REACH + 1) * _STEP
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        where = (fractions * self.pixels.shape[::-1] - 0.5)[:, None] + grid
        across, down = np.moveaxis(where.astype(np.float32), 2, 0)
        patches = cv2.remap(self.pixels, across, down, cv2.INTER_LINEAR, borderValue=0.0)
        return np.asarray(patches, dtype=np.float32).reshape(len(fractions), -1)


@lru_cache(maxsize=256)
def _view(path: Path, _changed_ns: int) -> _View:
    return _View(read_film(path))


def _likeness(pictures: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The mean size of the correlation of KxP values with others; a negative shows the same."""
    centred = [values - values.mean(axis=1, keepdims=True) for values in (pictures, others)]
    units = [values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1.0) for values in centred]
    return float(np.abs((units[0] * units[1]).sum(axis=1)).mean())

"""Frames of one clip, which look alike by nature: told from copies of one picture by the landmarks that moved.

K landmarks. Where two films look alike and a landmark has another place on each, either the one who marked them was not
sure, or what they show has moved. The pictures tell: of a copy, the first film's surroundings of a landmark are found
at the same place of the other, of a moved thing at the landmark's new place.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.data.near_duplicates import directions, thumbnail

Array = NDArray[np.float64]
Positions = Mapping[str, tuple[float, float]]

# In parts of the film's diagonal: nearer is the same place, farther is more than two raters are ever apart.
_MOVED, _FAR = 0.002, 0.012
_SIDE = 512
# Surroundings of 13x13 values, in pixels of a film of `_SIDE`: small, so that a thin limb fills its own.
_REACH, _STEP = 6, 1.25
# The surroundings of landmarks on copies are alike at least so much.
_COPY = 0.9
_SLOW = 12.0
_ASKED, _FEWEST = 24, 8
# Half of real or generated heads have no other within 0.7, half of the frames of a clip have one within 0.82 and more.
_SCENE = 0.78


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
    return followed > stayed or stayed < _COPY


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

        steps = np.arange(-_REACH, _REACH + 1) * _STEP * max(self.pixels.shape) / _SIDE
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        where = (fractions * self.pixels.shape[::-1] - 0.5)[:, None] + grid
        across, down = np.moveaxis(where.astype(np.float32), 2, 0)
        patches = cv2.remap(self.pixels, across, down, cv2.INTER_LINEAR, borderValue=0.0)
        return np.asarray(patches, dtype=np.float32).reshape(len(fractions), -1)


@lru_cache(maxsize=256)
def _view(path: Path, _changed_ns: int) -> _View:
    return _View(read_film(path))


def _likeness(pictures: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The size of the correlation of KxP values with others, where there is most to see first; a negative is alike."""
    one, other = (values - values.mean(axis=1, keepdims=True) for values in (pictures, others))
    return float(abs((one * other).sum()) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1.0))


def are_frames(films: Sequence[Path]) -> bool:
    """Whether films are of one scene that stays, as frames of a clip are: most of some look like another of them."""
    chosen = [films[int(place)] for place in np.linspace(0, len(films) - 1, min(len(films), _ASKED))]
    seen = []
    for path in chosen:
        try:
            seen.append(thumbnail(read_film(path)))
        except DataError:
            continue
    if len(seen) < _FEWEST:
        return False
    known = directions(np.stack(seen))
    alike = (known @ known.T > _SCENE) & ~np.eye(len(known), dtype=bool)
    return bool(alike.any(axis=1).mean() > 0.5)

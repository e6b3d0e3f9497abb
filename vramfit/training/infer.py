"""Landmarks of films that nobody has marked.

K landmarks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.image import SUFFIXES, read_film
from vramfit.landmarks.letterbox import Letterbox
from vramfit.training.finder import Array, Finder


@dataclass(frozen=True)
class FoundFilm:
    """One film and what was found: points Kx2, (x, y) in its pixels, and confidences K, 0 to 1."""

    path: Path
    points: Array
    confidence: Array


def list_films(sources: Sequence[Path]) -> list[Path]:
    """Films named one by one, and all those that lie in folders named, in order of name.

    Raises:
        DataError: no such file or folder, or a folder without films.

    """
    films: list[Path] = []
    for source in sources:
        if not source.exists():
            raise DataError(f"{source}: no such film or folder.")
        inside = sorted(path for path in source.iterdir() if _is_film(path)) if source.is_dir() else [source]
        if not inside:
            raise DataError(f"{source}: no films in it; the known types are {', '.join(SUFFIXES)}.")
        films += inside
    return films


def find_landmarks(finder: Finder, films: Sequence[Path]) -> Iterator[tuple[FoundFilm, NDArray[np.uint8]]]:
    """Find the landmarks of films, one by one as they are ready, each with its grey pixels.

    Raises:
        DataError: a film that cannot be read.

    """
    for start in range(0, len(films), finder.batch_size):
        paths = films[start : start + finder.batch_size]
        pixels = [read_film(path) for path in paths]
        boxes = [Letterbox.of((film.shape[1], film.shape[0]), finder.options.image_size) for film in pixels]
        images = np.stack([box.apply(film) for box, film in zip(boxes, pixels, strict=True)])
        for path, film, found in zip(paths, pixels, finder.find(images, boxes), strict=True):
            yield FoundFilm(path, *found), film


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")

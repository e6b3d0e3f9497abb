"""Checks of the films themselves: readable, of sane size, showing something, and each there once."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.finding import Finding, finding
from vramfit.landmarks.image import film_size, read_film

_HUGE_PIXELS = 100_000_000
_BLANK_SPREAD = 2.0
_THUMBNAIL = 64
# Two exposures of one patient differ in more than this leaves; a copy in another format does not.
_SAME_PICTURE = 0.999


@dataclass(frozen=True)
class SeenFilm:
    """A film that was looked at: `size` (width, height), None if it cannot be read, for `fault` then says why."""

    path: Path
    split: str
    size: tuple[int, int] | None = None
    spread: float = 0.0
    thumbnail: NDArray[np.float32] | None = None
    fault: str = ""

    @property
    def id(self) -> str:
        """The film's id."""
        return self.path.stem


def look(split: str, paths: Sequence[Path]) -> Iterator[SeenFilm]:
    """Decode every film of a split, in order; threads, for OpenCV works outside Python's lock."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(partial(_look, split), paths)


def film_findings(film: SeenFilm) -> Iterator[Finding]:
    """What is wrong with one film."""
    if film.size is None:
        yield finding("unreadable_film", film.path, film.fault)
        return
    width, height = film.size
    if width * height > _HUGE_PIXELS:
        yield finding("huge_film", film.path, f"{width}x{height} pixels; decoding it takes long and much memory.")
    if film.spread < _BLANK_SPREAD:
        yield finding("blank_film", film.path, "all pixels are nearly the same grey.")


def repeated_films(films: Sequence[SeenFilm]) -> Iterator[Finding]:
    """Films that are there twice, by id or by picture, within a split or across splits."""
    yield from _same_ids(films)
    seen = [film for film in films if film.thumbnail is not None and film.spread >= _BLANK_SPREAD]
    if not seen:
        return
    pictures = np.stack([film.thumbnail.ravel() for film in seen if film.thumbnail is not None])
    likeness = np.triu(pictures @ pictures.T, k=1)
    for first, second in np.argwhere(likeness > _SAME_PICTURE):
        one, other = seen[first], seen[second]
        if one.id != other.id:
            kind = "repeated_film" if one.split == other.split else "leaked_film"
            yield finding(kind, other.path, f"shows the same as {one.split}/{one.path.name}.")


def _same_ids(films: Sequence[SeenFilm]) -> Iterator[Finding]:
    by_id: dict[str, list[SeenFilm]] = defaultdict(list)
    for film in films:
        by_id[film.id].append(film)
    for same in by_id.values():
        for other in same[1:]:
            kind = "doubled_film" if other.split == same[0].split else "leaked_film"
            yield finding(kind, other.path, f"has the id of {same[0].split}/{same[0].path.name}.")


def _look(split: str, path: Path) -> SeenFilm:
    import cv2

    try:
        film_size(path)  # notices a file that was cut short, which OpenCV fills with grey
        pixels = read_film(path)
    except DataError as error:
        return SeenFilm(path, split, fault=str(error).removeprefix(f"{path}: "))
    small = cv2.resize(pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
    centred = small - small.mean()
    thumbnail = centred / max(float(np.linalg.norm(centred)), 1e-6)
    height, width = pixels.shape
    return SeenFilm(path, split, (width, height), float(small.std()), thumbnail)

"""Checks of the films themselves: readable, of sane size, showing something, and each there once."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data.frames import moved_between
from vramfit.landmarks.data.grey import is_dark, to_bytes
from vramfit.landmarks.data.image import film_size, stored_film
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import MarkedFilm
from vramfit.landmarks.data.near_duplicates import directions, thumbnail, twins

_HUGE_PIXELS = 100_000_000
BLANK_SPREAD = 2.0


@dataclass(frozen=True)
class SeenFilm:
    """A film that was looked at: `size` (width, height), None if it cannot be read, for `fault` then says why.

    `direction` is that of its thumbnail, as `near_duplicates.directions` gives it; `dark` is `grey.is_dark` of it.
    """

    film: MarkedFilm
    size: tuple[int, int] | None = None
    spread: float = 0.0
    direction: NDArray[np.float32] | None = None
    fault: str = ""
    dark: bool = False


def look(films: Sequence[MarkedFilm]) -> Iterator[SeenFilm]:
    """Decode every film, in order; threads, for OpenCV works outside Python's lock."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(_look, films)


def film_findings(seen: SeenFilm, *, has_millimetres: bool = True) -> Iterator[Finding]:
    """What is wrong with one film; `has_millimetres` says whether films of its set have pixel sizes."""
    path = seen.film.path
    if not seen.film.is_marked and not seen.film.faults:
        yield finding("missing_annotation", path, "no rater has marked this film.")
    if has_millimetres and seen.film.pixel_size_mm is None and not seen.film.faults:
        yield finding("missing_pixel_size", path, "the size of its pixels in mm is unknown.")
    if seen.size is None:
        yield finding("unreadable_film", path, seen.fault)
        return
    yield from seen.film.wrong_size(seen.size)
    yield from seen.film.turned()
    width, height = seen.size
    if width * height > _HUGE_PIXELS:
        yield finding("huge_film", path, f"{width}x{height} pixels; decoding it takes long and much memory.")
    if seen.spread < BLANK_SPREAD:
        yield finding("blank_film", path, "all pixels are nearly the same grey.")
    if seen.dark:
        yield finding("dark_film", path, "all that it shows is below a quarter of white; it is read brightened.")


def repeated_films(films: Sequence[SeenFilm]) -> Iterator[Finding]:
    """Films that are there twice, by id or by picture, within a split or across splits."""
    yield from _same_ids([seen.film for seen in films])
    sound = [film for film in films if film.direction is not None and film.spread >= BLANK_SPREAD]
    if not sound:
        return
    pictures = np.stack([seen.direction for seen in sound if seen.direction is not None])
    told: set[int] = set()
    for first, second in twins(pictures, pictures):
        one, other = sound[first].film, sound[second].film
        if first < second and second not in told and one.id != other.id and not _moved(one, other):
            told.add(second)  # of many alike, each once
            kind = "repeated_film" if one.split == other.split else "leaked_film"
            yield finding(kind, other.path, f"shows the same as {one.split}/{one.path.name}.")


def _moved(one: MarkedFilm, other: MarkedFilm) -> bool:
    """Whether the films are frames of a clip in which the landmarks moved."""
    rater = next((name for name in one.annotations if name in other.annotations), None)
    marks = [film.annotations.get(rater or "") or next(iter(film.annotations.values()), None) for film in (one, other)]
    if marks[0] is None or marks[1] is None:
        return False
    return moved_between(one.path, marks[0].positions, other.path, marks[1].positions)


def _same_ids(films: Sequence[MarkedFilm]) -> Iterator[Finding]:
    by_id: dict[str, list[MarkedFilm]] = defaultdict(list)
    for film in films:
        by_id[film.id].append(film)
    for same in by_id.values():
        for other in same[1:]:
            kind = "doubled_film" if other.split == same[0].split else "leaked_film"
            yield finding(kind, other.path, f"has the id of {same[0].split}/{same[0].path.name}.")


def _look(film: MarkedFilm) -> SeenFilm:
    try:
        film_size(film.path)  # notices a file that was cut short, which OpenCV fills with grey
        stored = stored_film(film.path)
    except DataError as error:
        fault = str(error).removeprefix(f"{film.path}: ").replace(" or use --skip-bad", "")
        return SeenFilm(film, fault=fault)
    pixels, dark = to_bytes(stored), is_dark(stored)
    small = thumbnail(pixels)
    height, width = pixels.shape
    return SeenFilm(film, (width, height), float(small.std()), directions(small[None])[0], dark=dark)

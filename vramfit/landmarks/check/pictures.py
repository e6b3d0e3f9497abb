"""What training refuses of films that it has decoded: those that show nothing, and those that are there twice.

The same findings as a check's, told from the cached images: no film is decoded again.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.check.films import BLANK_SPREAD
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.films import Film
from vramfit.landmarks.data.frames import moved_between
from vramfit.landmarks.data.near_duplicates import directions, thumbnails, twins

# Place of the cache among those given, and id of the film in it, to what is wrong.
_Faults = dict[tuple[int, str], str]


def sound_pictures(caches: Sequence[FilmCache], *, skip_bad: bool, twice: bool = True) -> list[FilmCache]:
    """The caches with the films that can be learned from and judged by.

    Args:
        caches: of the splits, those to train on first: of a film in both, the one to train on is left out.
        skip_bad: leave films out and list them, in place of raising.
        twice: whether films that are there twice are asked for, beside blank ones.

    Raises:
        DataError: a film is blank or there twice.

    """
    faults = _blank(caches)
    if twice:
        faults |= _repeated(caches, faults)
    if faults and not skip_bad:
        more = f" {len(faults) - 1} more are alike: `vramfit data check` lists them." if len(faults) > 1 else ""
        raise DataError(f"{next(iter(faults.values()))}{more}")
    bad: list[Mapping[str, str]] = [
        {film_id: said for (place, film_id), said in faults.items() if place == number} for number in range(len(caches))
    ]
    return [cache.without(mine) if mine else cache for cache, mine in zip(caches, bad, strict=True)]


def _blank(caches: Sequence[FilmCache]) -> _Faults:
    faults: _Faults = {}
    for number, cache in enumerate(caches):
        spreads = thumbnails(cache).std(axis=(1, 2)) if len(cache) else np.empty(0)
        for film, spread in zip(cache.film_set.films, spreads, strict=True):
            if spread < BLANK_SPREAD:
                said = "all pixels are nearly the same grey; replace the film or use --skip-bad."
                faults[number, film.id] = f"{film.path}: {said}"
    return faults


def _repeated(caches: Sequence[FilmCache], blank: _Faults) -> _Faults:
    """Films that show the same as another, each once: within a split the later one, of two splits the earlier's."""
    films = [(number, film) for number, cache in enumerate(caches) for film in cache.film_set.films]
    pictures = np.concatenate(
        [directions(thumbnails(cache)) for cache in caches if len(cache)] or [np.empty((0, 1), dtype=np.float32)]
    )
    faults: _Faults = {}
    for first, second in twins(pictures, pictures):
        (one, kept), (other, film) = (films[place] for place in (first, second))
        out, stays = ((other, film), kept) if one == other else ((one, kept), film)
        known = {(one, kept.id), (other, film.id)} & (blank.keys() | faults.keys())
        if first < second and not known and not _moved(kept, film):
            where = "another film" if one == other else "a film to validate on"
            said = f"shows the same as {stays.path}, {where}; remove one of them or use --skip-bad."
            faults[out[0], out[1].id] = f"{out[1].path}: {said}"
    return faults


def _moved(one: Film, other: Film) -> bool:
    """Whether the films are frames of a clip in which the landmarks moved."""
    places = [{str(k): (float(x), float(y)) for k, (x, y) in enumerate(film.points)} for film in (one, other)]
    return moved_between(one.path, places[0], other.path, places[1])

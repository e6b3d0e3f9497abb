"""Positions that mean "missing": programs write them where their format has no word for it."""

from collections import Counter
from dataclasses import replace

import numpy as np

from vramfit.landmarks.data.annotation import Annotation
from vramfit.landmarks.data.marked import MarkedFilm, MarkedSet

# No landmark lies exactly in the corner pixel of a film; the others are outside it.
_SENTINELS = frozenset((value, value) for value in (0.0, -1.0, -9.0, -99.0, -999.0, -9999.0, -100.0, -1000.0))


def without_sentinels(marked: MarkedSet) -> MarkedSet:
    """The set with such positions read as missing, and a note for each that says of which landmarks."""
    found: dict[tuple[float, float], Counter[str]] = {}
    films = tuple(_cleaned(film, found) for film in marked.films)
    notes = (_note(place, counts) for place, counts in sorted(found.items()))
    return replace(marked, films=films, notes=(*marked.notes, *notes)) if found else marked


def _cleaned(film: MarkedFilm, found: dict[tuple[float, float], Counter[str]]) -> MarkedFilm:
    annotations = {rater: _known(annotation, found) for rater, annotation in film.annotations.items()}
    return replace(film, annotations=annotations)


def _known(annotation: Annotation, found: dict[tuple[float, float], Counter[str]]) -> Annotation:
    missing = {symbol: place for symbol, place in annotation.positions.items() if place in _SENTINELS}
    for symbol, place in missing.items():
        found.setdefault(place, Counter())[symbol] += 1
    if not missing:
        return annotation
    return replace(annotation, positions={**annotation.positions, **dict.fromkeys(missing, (np.nan, np.nan))})


def _note(place: tuple[float, float], counts: Counter[str]) -> str:
    total, most = counts.total(), counts.most_common(3)
    said = ", ".join(f"'{symbol}' {times}" for symbol, times in most)
    more = " ..." if len(counts) > len(most) else ""
    points = "point is" if total == 1 else "points are"
    return f"{total} {points} at ({place[0]:g}, {place[1]:g}), which is read as missing: {said}{more}."

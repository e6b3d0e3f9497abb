"""Points that are equal where nobody marks alike: landmarks that share one place, films that share their points.

A hand that marks twice never hits the same pixel on every film: equal coordinates come from a table that was filled in
or joined wrongly. Frames of a clip are not judged, for what stands still in them is at one place.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from vramfit.landmarks.data.annotation import Annotation
from vramfit.landmarks.data.frames import are_frames
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import MarkedFilm

# Fewer landmarks may lie on each other, as the two ears of a head seen from the side; fewer films may agree by chance.
FEWEST_LANDMARKS = 3
_FEWEST_FILMS = 3
_NAMED = 4

Place = tuple[float, float]


def is_on_one_place(annotation: Annotation) -> bool:
    """Whether all landmarks that have a position, three or more, have the same."""
    places = list(_known(annotation).values())
    return len(places) >= FEWEST_LANDMARKS and len(set(places)) == 1


def equal_findings(
    films: Sequence[MarkedFilm], symbols: Sequence[str], told: Collection[str] = ()
) -> Iterator[Finding]:
    """What is equal on all films, or on two of them.

    Args:
        films: all films of a set.
        symbols: its landmarks.
        told: paths of films that are known to be there twice, whose points are equal for that reason.

    """
    marks = {
        film.path: [_known(one) for one in film.annotations.values() if not is_on_one_place(one)] for film in films
    }
    marks = {path: several for path, several in marks.items() if any(several)}
    every = [known for several in marks.values() for known in several]
    symbols = [symbol for symbol in symbols if any(symbol in known for known in every)]
    shared = _sharing(every, symbols)
    if shared:
        message = f"on every film {_listed(shared)} are at the same place."
        yield finding("coincident_landmarks", "", message)
    still = _still(marks, symbols)
    repeated = [] if len(still) == len(symbols) else list(_repeated(marks, told))
    if (still or repeated) and are_frames(list(marks)):
        return
    if still:
        which = "all landmarks" if len(still) == len(symbols) else _listed(still)
        message = f"{which} have the very same coordinates on all {len(marks)} films."
        yield finding("repeated_points", "", message)
    for path, first in repeated:
        yield finding("repeated_points", path, f"its points are exactly those of {first.parent.name}/{first.name}.")


def _known(annotation: Annotation) -> dict[str, Place]:
    return {symbol: place for symbol, place in annotation.positions.items() if np.isfinite(place).all()}


def _sharing(every: Sequence[Mapping[str, Place]], symbols: Sequence[str]) -> list[str]:
    """The landmarks that lie on another one wherever both are marked, on two annotations or more."""
    sharing = set[str]()
    for first, second in combinations(symbols, 2):
        both = [known[first] == known[second] for known in every if first in known and second in known]
        sharing |= {first, second} if len(both) > 1 and all(both) else set()
    return [symbol for symbol in symbols if symbol in sharing]


def _still(marks: Mapping[Path, Sequence[Mapping[str, Place]]], symbols: Sequence[str]) -> list[str]:
    """The landmarks with one position on all films, of three or more."""
    places = {
        symbol: [known[symbol] for several in marks.values() for known in several if symbol in known]
        for symbol in symbols
    }
    return [
        symbol
        for symbol, found in places.items()
        if len(marks) >= _FEWEST_FILMS and len(found) >= len(marks) and len(set(found)) == 1
    ]


def _repeated(
    marks: Mapping[Path, Sequence[Mapping[str, Place]]], told: Collection[str]
) -> Iterator[tuple[Path, Path]]:
    """Each film with the points of an earlier one, and that one."""
    owners = dict[frozenset[tuple[str, Place]], Path]()
    for path, several in marks.items():
        for known in several:
            first = owners.setdefault(frozenset(known.items()), path)
            if first != path and len(known) >= FEWEST_LANDMARKS and str(path) not in told:
                yield path, first
                break


def _listed(symbols: Sequence[str]) -> str:
    named = ", ".join(f"'{symbol}'" for symbol in symbols[:_NAMED])
    more = len(symbols) - _NAMED
    return f"{named} and {more} more" if more > 0 else named

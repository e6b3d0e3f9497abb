"""Cephalometric measures from landmarks: angles in degrees, ratios in per cent, the Wits appraisal in millimetres.

N films, K landmarks, by the symbols of the 'Aariz set: A, ANS, Ar, B, Gn, Go, LIA and LIT (apex and tip of the lower
incisor), LMT, LPM (tips of the lower first molar and second premolar), Me, N, Or, Po, Pog, S, UIA, UIT, UMT, UPM. The
face looks to either side: every angle is the one between two directions, without a sign. A measure whose landmarks are
not all there is NaN.

Sources: SNA, SNB, ANB, SN-GoGn, U1-SN and the interincisal angle: Steiner, Am J Orthod 39 (1953) 729. Facial angle and
Y axis: Downs, Am J Orthod 34 (1948) 812. FMA, FMIA and IMPA: Tweed, Angle Orthod 24 (1954) 121. Wits: Jacobson, Am J
Orthod 67 (1975) 125, by the functional occlusal plane through the middles of molars and of premolars. Saddle, articular
and gonial angles and their sum: Bjork, Am J Orthod 55 (1969) 585. Facial height ratio: Jarabak and Fizzell, Technique
and Treatment with Light-Wire Edgewise Appliances (1972).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vramfit.landmarks.data.films import FilmSet
from vramfit.landmarks.evaluation.metrics import scales, true_points
from vramfit.records import Record

Array = NDArray[np.float64]
# A landmark's places on all films, Nx2.
_Places = Callable[[str], Array]


class MeasureError(Record):
    """A measure by predicted points less by true ones, over `films` where both are known, in `unit`.

    `bias` is the mean difference, `sd` its standard deviation (of a sample, None for one film), `mean_absolute` the
    mean of its size; `by_rater` that by the points of each rater alone, where there are several; `raters_absolute` that
    of the junior by the senior rater, None where no film has both.
    """

    unit: Literal["degrees", "%", "mm"]
    films: int
    bias: float
    sd: float | None
    mean_absolute: float
    raters_absolute: float | None = None
    by_rater: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A measure: what it is for people, its unit, and how it follows from landmarks in square units."""

    title: str
    unit: Literal["degrees", "%", "mm"]
    of: Callable[[_Places], Array]


def _angle(first: str, second: str) -> Callable[[_Places], Array]:
    """The angle between two directions, each written as `FROM>TO`."""

    def of(at: _Places) -> Array:
        one, other = (at(end) - at(start) for start, end in (each.split(">") for each in (first, second)))
        across = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
        degrees: Array = np.degrees(np.arctan2(np.abs(across), (one * other).sum(axis=1)))
        return degrees

    return of


def _ratio(first: str, second: str) -> Callable[[_Places], Array]:
    """One distance in per cent of another, each written as `FROM>TO`."""

    def of(at: _Places) -> Array:
        one, other = (at(end) - at(start) for start, end in (each.split(">") for each in (first, second)))
        whole = np.linalg.norm(other, axis=1)
        share: Array = 100 * np.linalg.norm(one, axis=1) / np.where(whole > 0, whole, np.nan)
        return share

    return of


def _sum(*terms: tuple[float, Callable[[_Places], Array]], start: float = 0.0) -> Callable[[_Places], Array]:
    def of(at: _Places) -> Array:
        total: Array = start + np.sum([factor * term(at) for factor, term in terms], axis=0)
        return total

    return of


def _wits(at: _Places) -> Array:
    """From B to A along the occlusal plane, positive where A is in front."""
    molars, premolars = (at("UMT") + at("LMT")) / 2, (at("UPM") + at("LPM")) / 2
    forwards = premolars - molars
    length = np.linalg.norm(forwards, axis=1)
    distance: Array = ((at("A") - at("B")) * forwards).sum(axis=1) / np.where(length > 0, length, np.nan)
    return distance


_SNA, _SNB = _angle("N>S", "N>A"), _angle("N>S", "N>B")
_FMA, _IMPA = _angle("Po>Or", "Go>Me"), _angle("Me>Go", "LIA>LIT")
_SADDLE, _ARTICULAR, _GONIAL = _angle("S>N", "S>Ar"), _angle("Ar>S", "Ar>Go"), _angle("Go>Ar", "Go>Me")
_ONE = 1.0

MEASURES: Mapping[str, Measure] = {
    "SNA": Measure("maxilla to cranial base", "degrees", _SNA),
    "SNB": Measure("mandible to cranial base", "degrees", _SNB),
    "ANB": Measure("SNA less SNB", "degrees", _sum((_ONE, _SNA), (-_ONE, _SNB))),
    "Wits": Measure("A to B along the occlusal plane", "mm", _wits),
    "SN-GoGn": Measure("mandibular plane to cranial base", "degrees", _angle("S>N", "Go>Gn")),
    "FMA": Measure("mandibular plane to Frankfort", "degrees", _FMA),
    "FMIA": Measure("lower incisor to Frankfort", "degrees", _sum((-_ONE, _FMA), (-_ONE, _IMPA), start=180)),
    "IMPA": Measure("lower incisor to mandibular plane", "degrees", _IMPA),
    "U1-SN": Measure("upper incisor to cranial base", "degrees", _angle("N>S", "UIA>UIT")),
    "Interincisal": Measure("upper to lower incisor", "degrees", _angle("UIT>UIA", "LIT>LIA")),
    "Facial angle": Measure("Frankfort to N-Pog", "degrees", _angle("Or>Po", "N>Pog")),
    "Y axis": Measure("Frankfort to S-Gn", "degrees", _angle("Po>Or", "S>Gn")),
    "Saddle": Measure("N-S-Ar", "degrees", _SADDLE),
    "Articular": Measure("S-Ar-Go", "degrees", _ARTICULAR),
    "Gonial": Measure("Ar-Go-Me", "degrees", _GONIAL),
    "Bjork sum": Measure(
        "saddle, articular, gonial", "degrees", _sum((_ONE, _SADDLE), (_ONE, _ARTICULAR), (_ONE, _GONIAL))
    ),
    "Jarabak ratio": Measure("S-Go of N-Me", "%", _ratio("S>Go", "N>Me")),
    "Lower height": Measure("ANS-Me of N-Me", "%", _ratio("ANS>Me", "N>Me")),
}


def measured(points: Array, symbols: Sequence[str], *, has_millimetres: bool) -> dict[str, Array]:
    """Every measure that the landmarks allow, N values each, of NxKx2 points with square units.

    Those in mm are left out unless the points are in millimetres.
    """
    places = {symbol: points[:, place] for place, symbol in enumerate(symbols)}
    nowhere = np.full((len(points), 2), np.nan)

    def at(symbol: str) -> Array:
        return places.get(symbol, nowhere)

    values = {name: one.of(at) for name, one in MEASURES.items() if has_millimetres or one.unit != "mm"}
    return {name: found for name, found in values.items() if np.isfinite(found).any()}


def measure_errors(points: Array, films: FilmSet) -> dict[str, MeasureError]:
    """The measures of NxKx2 predicted points in native pixels beside those of the true ones, and the raters' beside."""
    mine, true = _of_films(points, films), _of_films(true_points(films), films)
    by_rater = {rater: _of_films(theirs, films) for rater, theirs in _raters(films).items()}
    found = {}
    for name in (name for name in mine if name in true):
        apart = mine[name] - true[name]
        known = apart[np.isfinite(apart)]
        if known.size:
            theirs = {rater: each[name] for rater, each in by_rater.items() if name in each}
            sizes = {rater: _mean_size(mine[name] - each) for rater, each in theirs.items()}
            found[name] = MeasureError(
                unit=MEASURES[name].unit,
                films=known.size,
                bias=float(known.mean()),
                sd=float(known.std(ddof=1)) if known.size > 1 else None,
                mean_absolute=float(np.abs(known).mean()),
                raters_absolute=_mean_size(np.subtract(*theirs.values())) if len(theirs) == 2 else None,
                by_rater={rater: size for rater, size in sizes.items() if size is not None},
            )
    return found


def _of_films(points: Array, films: FilmSet) -> dict[str, Array]:
    return measured(points * scales(films)[:, None], films.symbols, has_millimetres=films.unit == "mm")


def _raters(films: FilmSet) -> dict[str, Array]:
    """NxKx2 points of junior and senior rater, NaN on films that one did not mark; none where no film has both."""
    names = ("junior", "senior")
    if not any(set(names) <= film.raters.keys() for film in films.films):
        return {}
    nowhere = np.full((len(films.symbols), 2), np.nan)
    return {name: np.stack([film.raters.get(name, nowhere) for film in films.films]) for name in names}


def _mean_size(apart: Array) -> float | None:
    known = apart[np.isfinite(apart)]
    return float(np.abs(known).mean()) if known.size else None

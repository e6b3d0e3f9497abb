"""What a film set is, whatever format it was read from.

K landmarks. Points are float64 Kx2, (x, y) in pixels of the native film, NaN where missing; a pixel's centre is at
whole numbers.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.data.raters import Annotator

Points = NDArray[np.float64]
Unit = Literal["mm", "px"]


@dataclass(frozen=True)
class Landmark:
    """A landmark as its film set names it: `symbol` joins, `title` is for people."""

    symbol: str
    title: str


@dataclass(frozen=True)
class Film:
    """One film and where its landmarks are.

    `size` is (width, height) in pixels; `pixel_size_mm` the width and height of a pixel, NaN where no film of the set
    has one; `points` those to learn from; `raters` each rater's own points, for those who marked it.
    """

    id: str
    path: Path
    size: tuple[int, int]
    pixel_size_mm: tuple[float, float]
    machine: str
    points: Points
    raters: Mapping[str, Points]


@dataclass(frozen=True)
class Skipped:
    """A film left out, and the sentence that says why."""

    id: str
    reason: str

    @classmethod
    def of(cls, film_id: str, error: str) -> Self:
        """The film that an error is about; its advice to skip what is skipped already is left out."""
        return cls(film_id, re.sub(r",? or (use )?--skip-bad", "", error))


@dataclass(frozen=True)
class FilmSet:
    """The films of one split, in order of id, and their landmarks; `notes` say what was decided in reading them.

    `mean_rounds_up`: the mean of raters is rounded up where all marked whole pixels.
    """

    root: Path
    split: str
    annotator: Annotator
    landmarks: tuple[Landmark, ...]
    films: tuple[Film, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    mean_rounds_up: bool = False

    @property
    def symbols(self) -> tuple[str, ...]:
        """The landmarks' symbols, in the order of the points."""
        return tuple(landmark.symbol for landmark in self.landmarks)

    @property
    def unit(self) -> Unit:
        """What distances are in: millimetres, or pixels of the films where none of them has a pixel size."""
        return "px" if self.films and all(math.isnan(film.pixel_size_mm[0]) for film in self.films) else "mm"

    def __len__(self) -> int:
        return len(self.films)

    def first(self, films: int) -> Self:
        """This set with its first few films only."""
        return replace(self, films=self.films[:films])

    def of_landmarks(self, symbols: Sequence[str]) -> Self:
        """This set with these of its landmarks only, in the order given."""
        places = [self.symbols.index(symbol) for symbol in symbols]
        films = (
            replace(
                film,
                points=film.points[places],
                raters={rater: points[places] for rater, points in film.raters.items()},
            )
            for film in self.films
        )
        return replace(self, landmarks=tuple(self.landmarks[place] for place in places), films=tuple(films))

    def without(self, bad: Mapping[str, str]) -> Self:
        """This set less the films whose ids are keys of `bad`; the values say why."""
        skipped = tuple(Skipped.of(film.id, bad[film.id]) for film in self.films if film.id in bad)
        films = tuple(film for film in self.films if film.id not in bad)
        return replace(self, films=films, skipped=self.skipped + skipped)

"""One rater's points of one film, by name: what every format is read into."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.films import Landmark, Points

# Soft-tissue points are written with whatever the keyboard had: N` N' N´ N’ are one.
_PRIMES = str.maketrans("'´’‘′", "`````")


def named(symbol: object, title: object = "") -> Landmark:
    """A landmark by the name that its set gives it; without a title, its name is that."""
    name = str(symbol).strip().translate(_PRIMES)
    return Landmark(name, str(title or "").strip() or name)


@dataclass(frozen=True)
class Annotation:
    """Landmarks by symbol: (x, y) in pixels of the native film, NaN for one that is there without a position.

    `place` is where it is written, for people: a file, or a file and a line. `film_id` is the film it says it is of;
    empty where it does not say.
    """

    place: str
    landmarks: tuple[Landmark, ...]
    positions: Mapping[str, tuple[float, float]]
    film_id: str = ""

    def points(self, symbols: Sequence[str]) -> Points:
        """The points Kx2 in the order of `symbols`; NaN for those that are not there."""
        nowhere = (np.nan, np.nan)
        return np.array([self.positions.get(symbol, nowhere) for symbol in symbols], dtype=np.float64).reshape(-1, 2)

    def checked(self, symbols: Sequence[str], size: tuple[int, int]) -> Points:
        """The points, for a film of `size` (width, height).

        Raises:
            DataError: other landmarks than these are listed, or one lies outside the film.

        """
        if difference := self.difference(symbols):
            raise DataError(f"{self.place}: {difference}; correct the list or use --skip-bad.")
        for symbol in self.outside(size):
            x, y = self.positions[symbol]
            raise DataError(
                f"{self.place}: landmark '{symbol}' at ({x:g}, {y:g}) lies outside the film of "
                f"{size[0]}x{size[1]} pixels; correct it or use --skip-bad."
            )
        return self.points(symbols)

    def difference(self, symbols: Sequence[str]) -> str:
        """How its list of landmarks differs from `symbols`, positions aside; empty if it does not."""
        missing = [
            f"'{symbol}' is missing (list it without a position if it cannot be seen)"
            for symbol in symbols
            if symbol not in self.positions
        ]
        unknown = [f"'{symbol}' is not one of them" for symbol in self.positions if symbol not in symbols]
        if not missing and not unknown:
            return ""
        counts = f"{len(self.positions)} landmarks where the set has {len(symbols)}"
        return f"{counts}: {', '.join((*missing[:1], *unknown[:1]))}"

    def missing(self, symbols: Sequence[str]) -> list[str]:
        """Those of `symbols` that are without a position, listed or not."""
        nowhere = np.flatnonzero(np.isnan(self.points(symbols)).any(axis=1))
        return [symbols[int(k)] for k in nowhere]

    def outside(self, size: tuple[int, int]) -> list[str]:
        """The symbols of landmarks that lie outside a film of (width, height)."""
        # A border pixel may have been marked on either side of its centre; NaN is missing, not outside.
        return [symbol for symbol, (x, y) in self.positions.items() if x < -1 or y < -1 or x > size[0] or y > size[1]]


def common_landmarks(annotations: Sequence[Annotation]) -> tuple[Landmark, ...]:
    """The landmarks that half of the annotations or more list, in the order of the first with most of them."""
    counts = Counter(symbol for annotation in annotations for symbol in annotation.positions)
    enough = min(len(annotations) / 2, max(counts.values(), default=0))
    usual = {symbol for symbol, count in counts.items() if count >= enough}
    order: dict[str, Landmark] = {}
    for annotation in sorted(annotations, key=lambda one: -len(usual & one.positions.keys())):
        for landmark in annotation.landmarks:
            if landmark.symbol in usual:
                order.setdefault(landmark.symbol, landmark)
    return tuple(order.values())

"""One rater's JSON of one film.

{"ceph_id": ..., "landmarks": [{"landmark_id": ..., "title": ..., "symbol": ..., "value": {"x": ..., "y": ...}}]}
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.films import Landmark, Points

# Soft-tissue points are written with whatever the keyboard had: N` N' N´ N’ are one.
_PRIMES = str.maketrans("'´’‘′", "`````")


@dataclass(frozen=True)
class Annotation:
    """Landmarks by symbol, as written in a file: (x, y), NaN for one that is there without a position."""

    path: Path
    ceph_id: str
    landmarks: tuple[Landmark, ...]
    positions: Mapping[str, tuple[float, float]]

    def arranged(self, landmarks: Sequence[Landmark], size: tuple[int, int]) -> Points:
        """The points Kx2 in the order of `landmarks`.

        Raises:
            DataError: one is missing or unknown, or lies outside a film of `size` (width, height).

        """
        wanted = [landmark.symbol for landmark in landmarks]
        if difference := self.difference(wanted):
            raise DataError(f"{self.path}: {difference}; correct the list or use --skip-bad.")
        for symbol in self.outside(size):
            x, y = self.positions[symbol]
            raise DataError(
                f"{self.path}: landmark '{symbol}' at ({x:g}, {y:g}) lies outside the film of "
                f"{size[0]}x{size[1]} pixels; correct it or use --skip-bad."
            )
        return np.array([self.positions[symbol] for symbol in wanted], dtype=np.float64).reshape(-1, 2)

    def difference(self, wanted: Sequence[str]) -> str:
        """How the list of landmarks differs from the symbols wanted; empty if it does not."""
        missing = [symbol for symbol in wanted if symbol not in self.positions]
        unknown = [symbol for symbol in self.positions if symbol not in wanted]
        if not missing and not unknown:
            return ""
        parts = [f"'{missing[0]}' is missing"] if missing else []
        parts += [f"'{unknown[0]}' is not one of them"] if unknown else []
        return f"{len(self.positions)} landmarks where the set has {len(wanted)}: {', '.join(parts)}"

    def outside(self, size: tuple[int, int]) -> list[str]:
        """The symbols of landmarks that lie outside a film of (width, height)."""
        # A border pixel may have been marked on either side of its centre; NaN is missing, not outside.
        return [symbol for symbol, (x, y) in self.positions.items() if x < -1 or y < -1 or x > size[0] or y > size[1]]


def read_annotation(path: Path) -> Annotation:
    """One annotation file; a byte-order mark is welcome.

    Raises:
        DataError: no JSON, no landmarks, or an entry without a name or position; names the entry.

    """
    content = _read_json(path)
    entries = content.get("landmarks") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: no 'landmarks' list in it; export the annotation again or use --skip-bad.")
    landmarks, positions = [], {}
    for number, entry in enumerate(entries, 1):
        landmark = _landmark(path, number, entry)
        if landmark.symbol in positions:
            raise DataError(f"{path}: landmark '{landmark.symbol}' is listed twice; remove one or use --skip-bad.")
        landmarks.append(landmark)
        positions[landmark.symbol] = _position(path, landmark.symbol, entry.get("value"))
    return Annotation(path, str(content.get("ceph_id", "")), tuple(landmarks), positions)


def common_landmarks(annotations: Sequence[Annotation]) -> tuple[Landmark, ...]:
    """The landmarks that most annotations have, in the order of the first that has them."""
    kinds = Counter(frozenset(annotation.positions) for annotation in annotations)
    usual = kinds.most_common(1)[0][0]
    return next(annotation.landmarks for annotation in annotations if frozenset(annotation.positions) == usual)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); export the annotation again or use --skip-bad.") from None


def _landmark(path: Path, number: int, entry: Any) -> Landmark:
    names = entry if isinstance(entry, dict) else {}
    symbol = names.get("symbol") or names.get("landmark_id") or names.get("title")
    if not symbol:
        raise DataError(f"{path}: landmark {number} has neither 'symbol' nor 'landmark_id'; it cannot be joined.")
    symbol = str(symbol).strip().translate(_PRIMES)
    return Landmark(symbol, str(names.get("title") or symbol).strip())


def _position(path: Path, symbol: str, value: Any) -> tuple[float, float]:
    if value is None:
        return math.nan, math.nan
    try:
        x, y = value["x"], value["y"]
        if x is None or y is None:
            return math.nan, math.nan
        return float(x), float(y)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: landmark '{symbol}' has no 'value' with numbers x and y.") from None

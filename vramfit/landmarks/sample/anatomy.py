"""Where the landmarks of a made-up lateral skull are, and how skulls and raters differ.

Millimetres, x forward, y down, sella at (0, 0) and the Frankfort plane level. The positions are rough means of adults;
they serve to make pictures from which a network can learn, and say nothing about people.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True)
class Place:
    """A landmark's title, its mean position, and how far a careful rater strays from it (SD, mm)."""

    title: str
    x: float
    y: float
    spread_mm: float = 0.5


# The 29 landmarks of 'Aariz.
PLACES: dict[str, Place] = {
    "A": Place("A-point", 64, 53, 0.6),
    "ANS": Place("Anterior Nasal Spine", 70, 46, 0.5),
    "B": Place("B-point", 59, 92, 0.6),
    "Me": Place("Menton", 51, 117, 0.5),
    "N": Place("Nasion", 66, -7, 0.4),
    "Or": Place("Orbitale", 54, 24, 0.8),
    "Pog": Place("Pogonion", 60, 107, 0.4),
    "PNS": Place("Posterior Nasal Spine", 18, 44, 0.7),
    "Pn": Place("Pronasale", 93, 37, 0.3),
    "R": Place("Ramus", 9, 60, 0.8),
    "S": Place("Sella", 0, 0, 0.3),
    "Ar": Place("Articulare", -17, 34, 0.6),
    "Co": Place("Condylion", -11, 25, 0.8),
    "Gn": Place("Gnathion", 57, 114, 0.5),
    "Go": Place("Gonion", -11, 78, 0.9),
    "Po": Place("Porion", -23, 20, 0.9),
    "LPM": Place("Lower 2nd PM Cusp Tip", 48, 76, 0.7),
    "LIT": Place("Lower Incisor Tip", 66, 74, 0.4),
    "LMT": Place("Lower Molar Cusp Tip", 36, 74.5, 0.7),
    "UPM": Place("Upper 2nd PM Cusp Tip", 47, 74.5, 0.7),
    "UIA": Place("Upper Incisor Apex", 59, 55, 0.8),
    "UIT": Place("Upper Incisor Tip", 70, 76, 0.4),
    "UMT": Place("Upper Molar Cusp Tip", 35, 73, 0.7),
    "LIA": Place("Lower Incisor Apex", 55, 95, 0.8),
    "Li": Place("Labrale inferius", 81, 82, 0.4),
    "Ls": Place("Labrale superius", 84, 68, 0.4),
    "N`": Place("Soft Tissue Nasion", 73, -6, 0.5),
    "Pog`": Place("Soft Tissue Pogonion", 73, 107, 0.6),
    "Sn": Place("Subnasale", 79, 51, 0.4),
}

# Standard deviations beyond which nothing is drawn: no freaks of nature, no slips of a rater's hand.
_FREAK = 2.2

_MANDIBLE = ("B", "Me", "Pog", "R", "Gn", "Go", "LPM", "LIT", "LMT", "LIA", "Li", "Pog`")
_MAXILLA = ("A", "ANS", "PNS", "UPM", "UIA", "UIT", "UMT", "Ls", "Sn", "Pn")
_SOFT = ("Pn", "Li", "Ls", "N`", "Pog`", "Sn")


@dataclass(frozen=True)
class Skull:
    """One skull: its landmarks by symbol in mm, and the size and position of what is drawn around them."""

    points: dict[str, Array]
    cranium: float
    neck_tilt: float


def draw_skull(random: Random) -> Skull:
    """A skull that differs from the mean as faces do: in size, jaws, chin, incisors and soft tissue."""
    points = {symbol: np.array([place.x, place.y], dtype=np.float64) for symbol, place in PLACES.items()}
    vary = partial(_vary, random)
    _shift(points, _MAXILLA, np.array([vary(2.0), vary(1.2)]))
    _turn(points, _MANDIBLE, points["Co"].copy(), np.deg2rad(vary(2.0)))
    _shift(points, _MANDIBLE, np.array([vary(1.6), abs(vary(1.0))]))
    _shift(points, ("Pog", "Gn", "Me", "Pog`"), np.array([vary(1.5), vary(1.0)]))
    _turn(points, ("UIT",), points["UIA"].copy(), np.deg2rad(vary(5)))
    _turn(points, ("LIT",), points["LIA"].copy(), np.deg2rad(vary(5)))
    _shift(points, _SOFT, np.array([vary(1.2), 0.0]))
    _shift(points, ("Po",), np.array([vary(1.2), vary(1.2)]))
    _shift(points, ("Or",), np.array([vary(1.2), vary(1.2)]))
    for symbol in points:
        points[symbol] += [vary(0.5), vary(0.5)]
    stretch = np.array([1 + vary(0.03), 1 + vary(0.03)]) * (1 + vary(0.05))
    return Skull({symbol: point * stretch for symbol, point in points.items()}, 1 + vary(0.03), vary(4.0))


def mark(points: Array, random: Random, *, junior: bool) -> Array:
    """Where a rater marks the true points Kx2 (mm, in the order of PLACES); a junior strays further."""
    spread = np.array([place.spread_mm for place in PLACES.values()])[:, None]
    marked: Array = points + random.normal(0, 1, points.shape).clip(-_FREAK, _FREAK) * spread * (1.6 if junior else 1.0)
    return marked


def _vary(random: Random, spread: float) -> float:
    return spread * min(_FREAK, max(-_FREAK, random.normal()))


def _shift(points: dict[str, Array], symbols: tuple[str, ...], by: Array) -> None:
    for symbol in symbols:
        points[symbol] += by


def _turn(points: dict[str, Array], symbols: tuple[str, ...], around: Array, angle: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for symbol in symbols:
        points[symbol] = turn @ (points[symbol] - around) + around

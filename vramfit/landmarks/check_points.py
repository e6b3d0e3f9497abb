"""Checks of the points: lists that agree, points inside the film, shapes that are like the others, raters who agree."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.annotation import Annotation
from vramfit.landmarks.check_films import SeenFilm
from vramfit.landmarks.finding import Finding, finding
from vramfit.landmarks.shapes import FEWEST_SHAPES, find_oddities, sizes

_APART_MM = 5.0
_APART_SPREADS = 8.0
_ODD_SIZE = 1.5
_USUALLY_APART_MM = 8.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MarkedFilm:
    """A film, its pixel size in mm (x, y) or None if unknown, and each rater's annotation."""

    film: SeenFilm
    pixel_size_mm: tuple[float, float] | None
    annotations: Mapping[str, Annotation]


@dataclass(frozen=True)
class Shape:
    """One rater's points of one film in mm, Kx2."""

    film: SeenFilm
    rater: str
    annotation: Annotation
    points_mm: Array


def point_findings(marked: Sequence[MarkedFilm], symbols: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with the points of a film set."""
    for film in marked:
        for annotation in film.annotations.values():
            yield from _list_findings(annotation, film.film.size, symbols)
    shapes = list(_shapes(marked, symbols))
    if len(shapes) >= FEWEST_SHAPES:
        yield from _size_findings(shapes)
        yield from _shape_findings(shapes, symbols)
    if shapes:
        yield from _coincident(shapes, symbols)
        yield from _rater_findings(shapes, symbols)


def _list_findings(annotation: Annotation, size: tuple[int, int] | None, symbols: Sequence[str]) -> Iterator[Finding]:
    if difference := annotation.difference(symbols):
        yield finding("wrong_landmarks", annotation.path, f"{difference}.")
    for symbol in annotation.outside(size) if size else ():
        x, y = annotation.positions[symbol]
        yield finding("point_outside", annotation.path, f"'{symbol}' at ({x:g}, {y:g}) lies outside the film.")
    for symbol, place in annotation.positions.items():
        if np.isnan(place).any():
            yield finding("missing_point", annotation.path, f"'{symbol}' has no position.")


def _shapes(marked: Sequence[MarkedFilm], symbols: Sequence[str]) -> Iterator[Shape]:
    for film in marked:
        for rater, annotation in film.annotations.items():
            if film.pixel_size_mm is None or annotation.difference(symbols):
                continue
            points = np.array([annotation.positions[symbol] for symbol in symbols], dtype=np.float64)
            yield Shape(film.film, rater, annotation, points * film.pixel_size_mm)


def _coincident(shapes: Sequence[Shape], symbols: Sequence[str]) -> Iterator[Finding]:
    stack = np.stack([shape.points_mm for shape in shapes])
    apart = np.linalg.norm(stack[:, :, None] - stack[:, None], axis=3)
    # Cusps that bite together may well be marked at one pixel.
    usual = np.nanmedian(apart, axis=0)
    for n, first, second in np.argwhere(np.triu((apart == 0) & (usual > _USUALLY_APART_MM), k=1)):
        message = f"'{symbols[first]}' and '{symbols[second]}' are at the same place."
        yield finding("coincident_points", shapes[n].annotation.path, message)


def _size_findings(shapes: Sequence[Shape]) -> Iterator[Finding]:
    ratio = sizes(np.stack([shape.points_mm for shape in shapes]))
    ratio = ratio / np.nanmedian(ratio)
    films = {shape.film.path: (shape.film, value) for shape, value in zip(shapes, ratio, strict=True)}
    for film, value in films.values():
        if not 1 / _ODD_SIZE < value < _ODD_SIZE:
            message = f"its head is {value:.2f} times the usual size in mm; check the pixel size."
            yield finding("odd_pixel_size", film.path, message)


def _shape_findings(shapes: Sequence[Shape], symbols: Sequence[str]) -> Iterator[Finding]:
    stack = np.stack([shape.points_mm for shape in shapes])
    size = sizes(stack)
    # To one size: a wrong pixel size is a finding of its own.
    oddities = find_oddities(stack * (np.nanmedian(size) / size)[:, None, None])
    for path in dict.fromkeys(shapes[n].film.path for n in oddities.mirrored):
        yield finding("mirrored_film", path, "its points face the other way than those of most films.")
    for n, first, second in oddities.swapped:
        message = f"'{symbols[first]}' and '{symbols[second]}' seem to have each other's place."
        yield finding("swapped_points", shapes[n].annotation.path, message)
    for n, k in oddities.outlying:
        x, y = shapes[n].annotation.positions[symbols[k]]
        message = f"'{symbols[k]}' at ({x:g}, {y:g}) is far from where the other landmarks put it."
        yield finding("outlying_point", shapes[n].annotation.path, message)


def _rater_findings(shapes: Sequence[Shape], symbols: Sequence[str]) -> Iterator[Finding]:
    by_film: dict[object, list[Shape]] = {}
    for shape in shapes:
        by_film.setdefault(shape.film.path, []).append(shape)
    pairs = [pair for pair in by_film.values() if len(pair) == 2]
    if not pairs:
        return
    apart = np.stack([np.linalg.norm(one.points_mm - other.points_mm, axis=1) for one, other in pairs])
    limit = np.maximum(_APART_MM, _APART_SPREADS * np.nanmedian(apart, axis=0))
    for n, k in np.argwhere(apart > limit):
        message = f"the raters are {apart[n, k]:.1f} mm apart on '{symbols[k]}'."
        yield finding("raters_apart", pairs[n][0].film.path, message)

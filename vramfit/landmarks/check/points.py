"""Checks of the points: lists that agree, points inside the film, shapes that are like the others, raters who agree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.check.equal_points import is_on_one_place
from vramfit.landmarks.check.films import SeenFilm
from vramfit.landmarks.check.shape_model import known_median
from vramfit.landmarks.check.shapes import FEWEST_POINTS, FEWEST_SHAPES, find_oddities, relative_sizes
from vramfit.landmarks.data.annotation import Annotation
from vramfit.landmarks.data.frames import are_frames
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import MarkedFilm

_APART_MM = 5.0
_APART_MEDIANS = 6.0
_APART_SPREADS = 8.0
_ODD_SIZE = 1.5
_USUALLY_APART_MM = 8.0
# The larger side of the box around the landmarks of a head.
_USUAL_HEAD_MM = 130.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One rater's points of one film in mm, Kx2; of sets without pixel sizes, as if what is marked were a head."""

    film: MarkedFilm
    rater: str
    annotation: Annotation
    points_mm: Array


def point_findings(films: Sequence[SeenFilm], symbols: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with the points of a film set."""
    for seen in films:
        for annotation in seen.film.annotations.values():
            yield from _list_findings(annotation, seen.size, symbols)
    unmarked = _unmarked(films, symbols)
    for symbol in unmarked:
        yield finding("unmarked_landmark", "", f"no film has a position for '{symbol}'.")
    symbols = [symbol for symbol in symbols if symbol not in unmarked]
    shapes = list(_shapes(films, symbols))
    if shapes:
        yield from _coincident(shapes, symbols)
        yield from _rater_findings(shapes, symbols)
    if len(shapes) >= FEWEST_SHAPES:
        odd = [*_size_findings(shapes), *_shape_findings(shapes, symbols)]
        # Bodies in a clip bend, turn and face both ways, where heads on films do not.
        yield from odd if odd and not are_frames([shape.film.path for shape in shapes]) else ()


def _list_findings(annotation: Annotation, size: tuple[int, int] | None, symbols: Sequence[str]) -> Iterator[Finding]:
    if difference := annotation.difference(symbols):
        yield finding("wrong_landmarks", annotation.place, f"{difference}.")
    for symbol in annotation.outside(size) if size else ():
        x, y = annotation.positions[symbol]
        yield finding("point_outside", annotation.place, f"'{symbol}' at ({x:g}, {y:g}) lies outside the film.")
    if is_on_one_place(annotation):
        yield finding("coincident_points", annotation.place, "all landmarks are at the same place.")
    if missing := annotation.missing([symbol for symbol in symbols if symbol in annotation.positions]):
        names = ", ".join(f"'{symbol}'" for symbol in missing)
        message = f"{len(missing)} of {len(symbols)} landmarks have no position: {names}."
        yield finding("missing_point", annotation.place, message)


def _unmarked(films: Sequence[SeenFilm], symbols: Sequence[str]) -> list[str]:
    """The landmarks that no annotation has a position for."""
    every = [annotation for seen in films for annotation in seen.film.annotations.values()]
    missing = [set(annotation.missing(symbols)) for annotation in every]
    return sorted(set.intersection(*missing), key=list(symbols).index) if missing else []


def _scales(films: Sequence[SeenFilm], symbols: Sequence[str]) -> list[tuple[float, float]]:
    """What a pixel of each film measures in mm, NaN where only others of the set say; see `Shape` for the rest."""
    sizes = [seen.film.pixel_size_mm for seen in films]
    if any(size is not None for size in sizes):
        return [size or (np.nan, np.nan) for size in sizes]
    every = [annotation.points(symbols) for seen in films for annotation in seen.film.annotations.values()]
    sides = [np.fmax.reduce(points) - np.fmin.reduce(points) for points in every]
    largest = [float(side.max()) for side in sides if np.isfinite(side).all()]
    size = _USUAL_HEAD_MM / max(float(np.median(largest)), 1e-6) if largest else np.nan
    return [(size, size)] * len(sizes)


def _shapes(films: Sequence[SeenFilm], symbols: Sequence[str]) -> Iterator[Shape]:
    """The shapes in mm, of those films that have enough points to be a shape, and not all at one place."""
    for film, scale in zip((seen.film for seen in films), _scales(films, symbols), strict=True):
        for rater, annotation in film.annotations.items():
            points = annotation.points(symbols) * scale
            if np.isfinite(points).all(axis=1).sum() >= FEWEST_POINTS and not is_on_one_place(annotation):
                yield Shape(film, rater, annotation, points)


def _coincident(shapes: Sequence[Shape], symbols: Sequence[str]) -> Iterator[Finding]:
    stack = np.stack([shape.points_mm for shape in shapes])
    apart = np.linalg.norm(stack[:, :, None] - stack[:, None], axis=3)
    # Cusps that bite together may well be marked at one pixel.
    usual = known_median(apart, axis=0)
    spread = 1.4826 * known_median(np.abs(apart - usual), axis=0)
    odd = usual > np.maximum(_USUALLY_APART_MM, _APART_SPREADS * spread)
    for n, first, second in np.argwhere(np.triu((apart == 0) & odd, k=1)):
        message = f"'{symbols[first]}' and '{symbols[second]}' are at the same place."
        yield finding("coincident_points", shapes[n].annotation.place, message)


def _size_findings(shapes: Sequence[Shape]) -> Iterator[Finding]:
    ratio = relative_sizes(np.stack([shape.points_mm for shape in shapes]))
    films = {shape.film.path: (shape.film, value) for shape, value in zip(shapes, ratio, strict=True)}
    for film, value in films.values():
        if np.isfinite(value) and not 1 / _ODD_SIZE < value < _ODD_SIZE:
            yield finding("odd_pixel_size", film.path, _odd_size(film, value))


def _odd_size(film: MarkedFilm, value: float) -> str:
    if film.pixel_size_mm is None:
        return f"what is marked is {value:.2f} times the usual size; check the unit and resolution of its points."
    return f"its head is {value:.2f} times the usual size in mm; check the pixel size."


def _shape_findings(shapes: Sequence[Shape], symbols: Sequence[str]) -> Iterator[Finding]:
    stack = np.stack([shape.points_mm for shape in shapes])
    # To one size: a wrong pixel size is a finding of its own.
    oddities = find_oddities(stack / np.fmax(relative_sizes(stack), 1e-3)[:, None, None])
    for path in dict.fromkeys(shapes[n].film.path for n in oddities.mirrored):
        yield finding("mirrored_film", path, "its points face the other way than those of most films.")
    for n, first, second in oddities.swapped:
        message = f"'{symbols[first]}' and '{symbols[second]}' seem to have each other's place."
        yield finding("swapped_points", shapes[n].annotation.place, message)
    for n, k in oddities.outlying:
        x, y = shapes[n].annotation.positions[symbols[k]]
        message = f"'{symbols[k]}' at ({x:g}, {y:g}) is far from where the other landmarks put it."
        yield finding("outlying_point", shapes[n].annotation.place, message)


def _rater_findings(shapes: Sequence[Shape], symbols: Sequence[str]) -> Iterator[Finding]:
    by_film: dict[object, list[Shape]] = {}
    for shape in shapes:
        by_film.setdefault(shape.film.path, []).append(shape)
    pairs = [pair for raters in by_film.values() for pair in combinations(raters, 2)]
    if not pairs:
        return
    apart = np.stack([np.linalg.norm(one.points_mm - other.points_mm, axis=1) for one, other in pairs])
    limit = np.maximum(_APART_MM, _APART_MEDIANS * known_median(apart, axis=0))
    for n, k in np.argwhere(apart > limit):
        one, other = pairs[n]
        far = f"{apart[n, k]:.1f} mm"
        if one.film.pixel_size_mm is None:
            places = (np.array(shape.annotation.positions[symbols[k]]) for shape in (one, other))
            far = f"{np.linalg.norm(np.subtract(*places)):.1f} px"
        yield finding("raters_apart", one.film.path, f"the raters are {far} apart on '{symbols[k]}'.")

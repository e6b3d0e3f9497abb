"""How far predicted points are from the truth, in millimetres.

N films, K landmarks. A radial error is the distance in the native film times the film's pixel size; MRE is the mean,
SD the standard deviation, SDR@z the share of errors below z mm. Missing landmarks are left out everywhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.films import FilmSet
from vramfit.landmarks.letterbox import Letterbox
from vramfit.records import Record

Array = NDArray[np.float64]

LIMITS_MM = (2.0, 2.5, 3.0, 4.0)


class Scores(Record):
    """The errors of some points: `sdr` maps `2.0mm` and so on to a share of 1; None where no point was known."""

    points: int
    mre_mm: float | None
    sd_mm: float | None
    sdr: dict[str, float]


class Evaluation(Record):
    """Scores over everything, by landmark (symbol) and by machine."""

    overall: Scores
    landmarks: dict[str, Scores]
    machines: dict[str, Scores]


def radial_errors_mm(predicted: Array, truth: Array, pixel_size_mm: Array) -> Array:
    """NxK radial errors of NxKx2 points in native film pixels; pixel_size_mm is Nx2, (x, y). NaN where missing."""
    errors: Array = np.linalg.norm((predicted - truth) * pixel_size_mm[:, None, :], axis=2)
    return errors


def pixel_sizes_mm(film_set: FilmSet) -> Array:
    """The pixel sizes of a film set, Nx2."""
    return np.array([film.pixel_size_mm for film in film_set.films], dtype=np.float64)


def true_points(film_set: FilmSet) -> Array:
    """The points to be judged by, NxKx2 in native pixels."""
    return np.stack([film.points for film in film_set.films])


def to_films(points: Array, letterboxes: Sequence[Letterbox]) -> Array:
    """NxKx2 image pixels to each film's native pixels."""
    return np.stack([letterbox.to_film(mine) for mine, letterbox in zip(points, letterboxes, strict=True)])


def scores(errors_mm: Array) -> Scores:
    """MRE, SD and SDR of radial errors of any shape."""
    known = errors_mm[np.isfinite(errors_mm)]
    if not known.size:
        return Scores(points=0, mre_mm=None, sd_mm=None, sdr={})
    below = {f"{limit}mm": float((known < limit).mean()) for limit in LIMITS_MM}
    return Scores(points=known.size, mre_mm=float(known.mean()), sd_mm=float(known.std()), sdr=below)


def evaluate_points(predicted: Array, film_set: FilmSet) -> Evaluation:
    """Everything that can be said of NxKx2 predicted points in native pixels."""
    errors = radial_errors_mm(predicted, true_points(film_set), pixel_sizes_mm(film_set))
    machines = np.array([film.machine for film in film_set.films])
    return Evaluation(
        overall=scores(errors),
        landmarks={symbol: scores(errors[:, k]) for k, symbol in enumerate(film_set.symbols)},
        machines={str(name): scores(errors[machines == name]) for name in np.unique(machines)},
    )


def mean_shape(training: FilmSet, image_size: tuple[int, int]) -> Array:
    """The mean training position of each landmark, Kx2 in image pixels: the baseline that sees no film."""
    placed = [Letterbox.of(film.size, image_size).to_image(film.points) for film in training.films]
    every = np.stack(placed)
    known = np.isfinite(every)
    mean: Array = np.where(known, every, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean


def mean_shape_points(training: FilmSet, films: FilmSet, image_size: tuple[int, int]) -> Array:
    """The baseline's points for some films, NxKx2 in native pixels."""
    shape = mean_shape(training, image_size)
    return np.stack([Letterbox.of(film.size, image_size).to_film(shape) for film in films.films])

"""How far predicted points are from the truth, in millimetres, or in pixels where no film has a pixel size.

N films, K landmarks. A radial error is the distance in the native film times the film's pixel size; MRE is the mean,
SD the standard deviation, SDR@z the share of errors below z mm. Missing landmarks are left out everywhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.data.films import FilmSet, Unit
from vramfit.landmarks.data.letterbox import Letterbox
from vramfit.landmarks.evaluation.statistics import bootstrap_interval
from vramfit.records import Record

Array = NDArray[np.float64]

LIMITS_MM = (2.0, 2.5, 3.0, 4.0)
CURVE_MM = tuple(tenth / 10 for tenth in range(101))
LIMITS_PX = (2.0, 5.0, 10.0, 20.0)
CURVE_PX = tuple(half / 2 for half in range(101))


class Scores(Record):
    """The errors of some points: `sdr` maps `2.0mm` and so on to a share of 1; None where no point was known.

    `interval_mm` is the 95 % interval of the MRE, a bootstrap over films; None for fewer than two films. Of films
    without pixel sizes, the figures are those in pixels, `sdr` maps `5px` and so on, and those in mm are None.
    """

    points: int
    mre_mm: float | None
    sd_mm: float | None
    sdr: dict[str, float]
    interval_mm: tuple[float, float] | None = None
    mre_px: float | None = None
    sd_px: float | None = None
    interval_px: tuple[float, float] | None = None

    @property
    def mre(self) -> float | None:
        """The MRE in whichever unit there is."""
        return self.mre_mm if self.mre_px is None else self.mre_px

    @property
    def sd(self) -> float | None:
        """The standard deviation in that unit."""
        return self.sd_mm if self.mre_px is None else self.sd_px

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the MRE in that unit."""
        return self.interval_mm if self.mre_px is None else self.interval_px


class Evaluation(Record):
    """Scores over everything, by landmark (symbol) and by machine.

    `curve` is the SDR at each of CURVE_MM, 0 to 10 mm by tenths, or of CURVE_PX; empty where no point was known.
    """

    overall: Scores
    landmarks: dict[str, Scores]
    machines: dict[str, Scores]
    curve: tuple[float, ...]


class PixelSizes(Record):
    """What the pixels of some films measure.

    `width_mm` and `height_mm` are the smallest and largest, None where no film has one; `unequal` counts films whose
    width and height differ, `missing` those without a pixel size, which are in no figure in millimetres.
    """

    width_mm: tuple[float, float] | None
    height_mm: tuple[float, float] | None
    unequal: int
    missing: int


def limits(unit: Unit) -> tuple[float, ...]:
    """The limits of the SDR in a unit."""
    return LIMITS_MM if unit == "mm" else LIMITS_PX


def curve_limits(unit: Unit) -> tuple[float, ...]:
    """The limits of the SDR's curve in a unit."""
    return CURVE_MM if unit == "mm" else CURVE_PX


def scales(film_set: FilmSet) -> Array:
    """What a pixel of each film measures in the set's unit, Nx2: its pixel size, or 1."""
    sizes = pixel_sizes_mm(film_set)
    return sizes if film_set.unit == "mm" else np.ones_like(sizes)


def radial_errors_mm(predicted: Array, truth: Array, pixel_size_mm: Array) -> Array:
    """NxK radial errors of NxKx2 points in native film pixels; pixel_size_mm is Nx2, (x, y). NaN where missing."""
    errors: Array = np.linalg.norm((predicted - truth) * pixel_size_mm[:, None, :], axis=2)
    return errors


def pixel_sizes_mm(film_set: FilmSet) -> Array:
    """The pixel sizes of a film set, Nx2."""
    return np.array([film.pixel_size_mm for film in film_set.films], dtype=np.float64)


def describe_pixel_sizes(film_set: FilmSet) -> PixelSizes:
    """The range of the pixel sizes of a film set, and what is odd about them."""
    sizes = pixel_sizes_mm(film_set)
    known = sizes[np.isfinite(sizes).all(axis=1)]
    ranges = [(float(side.min()), float(side.max())) for side in known.T] if len(known) else [None, None]
    unequal = int((known[:, 0] != known[:, 1]).sum())
    return PixelSizes(width_mm=ranges[0], height_mm=ranges[1], unequal=unequal, missing=len(sizes) - len(known))


def true_points(film_set: FilmSet) -> Array:
    """The points to be judged by, NxKx2 in native pixels."""
    return np.stack([film.points for film in film_set.films])


def to_films(points: Array, letterboxes: Sequence[Letterbox]) -> Array:
    """NxKx2 image pixels to each film's native pixels."""
    return np.stack([letterbox.to_film(mine) for mine, letterbox in zip(points, letterboxes, strict=True)])


def errors_of(predicted: Array, film_set: FilmSet) -> Array:
    """NxK radial errors of NxKx2 predicted points in native pixels, in the set's unit; NaN where missing."""
    return radial_errors_mm(predicted, true_points(film_set), scales(film_set))


def scores(errors: Array, unit: Unit = "mm") -> Scores:
    """MRE, SD and SDR of radial errors of any shape, in `unit`."""
    known = errors[np.isfinite(errors)]
    if not known.size:
        return Scores(points=0, mre_mm=None, sd_mm=None, sdr={})
    below = {f"{_word(limit, unit)}": float((known < limit).mean()) for limit in limits(unit)}
    mean, spread = float(known.mean()), float(known.std())
    if unit == "px":
        return Scores(points=known.size, mre_mm=None, sd_mm=None, sdr=below, mre_px=mean, sd_px=spread)
    return Scores(points=known.size, mre_mm=mean, sd_mm=spread, sdr=below)


def film_scores(errors: Array, unit: Unit = "mm") -> Scores:
    """The scores of NxM errors of N films in `unit`, with the interval of their MRE."""
    return scores(errors, unit).model_copy(update={f"interval_{unit}": bootstrap_interval(errors)})


def sdr_curve(errors: Array, unit: Unit = "mm") -> tuple[float, ...]:
    """The SDR of radial errors of any shape at each of `curve_limits`; empty where none is known."""
    known = np.sort(errors[np.isfinite(errors)])
    if not known.size:
        return ()
    return tuple(float(share) for share in np.searchsorted(known, curve_limits(unit), side="left") / known.size)


def _word(limit: float, unit: Unit) -> str:
    """A limit as SDRs are called: `2.0mm`, `5px`."""
    return f"{limit}mm" if unit == "mm" else f"{limit:g}px"


def sdr_at(scores: Scores, limit: float, unit: Unit) -> float | None:
    """The SDR at a limit; None where no point was known."""
    return scores.sdr.get(_word(limit, unit))


def evaluate_points(predicted: Array, film_set: FilmSet) -> Evaluation:
    """Everything that can be said of NxKx2 predicted points in native pixels."""
    errors, unit = errors_of(predicted, film_set), film_set.unit
    machines = np.array([film.machine for film in film_set.films])
    return Evaluation(
        overall=film_scores(errors, unit),
        landmarks={symbol: film_scores(errors[:, [k]], unit) for k, symbol in enumerate(film_set.symbols)},
        machines={str(name): film_scores(errors[machines == name], unit) for name in np.unique(machines)},
        curve=sdr_curve(errors, unit),
    )


def mean_shape(training: FilmSet, image_size: tuple[int, int]) -> Array:
    """The mean training position of each landmark, Kx2 in image pixels: the baseline that sees no film.

    NaN for a landmark that no film has.
    """
    placed = [Letterbox.of(film.size, image_size).to_image(film.points) for film in training.films]
    every = np.stack(placed)
    known = np.isfinite(every)
    count = known.sum(axis=0)
    mean: Array = np.where(known, every, 0).sum(axis=0) / np.where(count, count, np.nan)
    return mean


def baseline_points(shape: Array, films: FilmSet, image_size: tuple[int, int]) -> Array:
    """A mean shape, Kx2 in image pixels, on each of some films: NxKx2 in native pixels."""
    return np.stack([Letterbox.of(film.size, image_size).to_film(shape) for film in films.films])

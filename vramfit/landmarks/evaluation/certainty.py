"""Calibrating a trained network on marked films, and judging what it promises on others.

N films, K landmarks, L levels.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vramfit.errors import VramfitError
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.films import Film
from vramfit.landmarks.evaluation.films_at_once import WITHOUT_ASKING
from vramfit.landmarks.evaluation.metrics import scales, true_points
from vramfit.landmarks.evaluation.predict_points import Predictions, predict_points, recovering
from vramfit.landmarks.evaluation.statistics import bootstrap_interval, rank_correlation
from vramfit.landmarks.model.calibration import FEWEST_FILMS, Certainty, Observed, calibrated
from vramfit.landmarks.model.trained_network import Trained, keep_calibration, load_trained
from vramfit.records import Record
from vramfit.training.recovery import made_again
from vramfit.training.run_options import DeviceChoice

Array = NDArray[np.float64]


class Promise(Record):
    """A level of coverage on films with known points: the `share` of points within their regions, over `points`.

    `interval` is its 95 % interval, a bootstrap over films, None for one film; `radius` the mean radius of the regions
    in the films' unit.
    """

    level: float
    share: float
    points: int
    interval: tuple[float, float] | None
    radius: float

    @classmethod
    def of(cls, level: float, radii: Array, errors: Array, sizes: Array) -> "Promise":
        """The level of regions of these radii, NxK as the errors are, both in pixels; `sizes` of a pixel are Nx1."""
        known = np.isfinite(errors)
        inside = np.where(known, errors <= radii, np.nan)
        return cls(
            level=level,
            share=float(np.nanmean(inside)),
            points=int(known.sum()),
            interval=bootstrap_interval(inside),
            radius=float(np.nanmean(radii * sizes)),
        )


class Kept(Record):
    """How a network's certainty held on some films.

    `spearman` is the rank correlation of expected and true errors over all points; `doubtful` names points without
    evidence and `unlike` films unlike those calibrated on, with the reason.
    """

    calibrated_on: int
    promises: tuple[Promise, ...]
    spearman: float
    doubtful: dict[str, tuple[str, ...]]
    unlike: dict[str, str]


def calibrate(trained: Trained, found: Predictions, cache: FilmCache) -> Trained:
    """The network calibrated on the films of a cache, all of whose points were found; its checkpoint keeps that too.

    Raises:
        DataError: fewer than 8 films.
        UsageError: not a checkpoint of `vramfit train`.
        CannotWrite: the checkpoint cannot be written.

    """
    films = cache.film_set.films
    apart = np.stack([_apart(film) for film in films]) * np.stack([box.scale for box in cache.letterboxes])[:, None]
    assert found.areas is not None
    seen = Observed(
        _on_images(found.points, cache),
        cache.points(),
        found.confidence,
        found.areas,
        apart,
        method=found.method,
        views=found.views,
    )
    calibration = calibrated(seen, trained.mean_shape)
    keep_calibration(trained, calibration)
    return replace(trained, calibration=calibration)


def calibrated_after(checkpoint: Path, cache: FilmCache, device: torch.device) -> str:
    """Calibrate what was just trained on films that it did not learn from: a sentence, also where it cannot be."""
    marked = sum(bool(np.isfinite(film.points).any()) for film in cache.film_set.films)
    if marked < FEWEST_FILMS:
        return (
            f"Not calibrated: {marked} validation films with points are too few, {FEWEST_FILMS} are needed; `infer` "
            "finds points and does not say how sure they are."
        )
    try:
        # What trained lies on the card still, with the state of its optimizer.
        where: DeviceChoice = "cuda" if device.type == "cuda" else "cpu"
        trained = made_again(lambda: load_trained(checkpoint, where), "the network to calibrate")
        validate, stride = recovering(trained.step, WITHOUT_ASKING), trained.options.heatmap_stride
        calibrate(trained, predict_points(validate, cache, batch_size=WITHOUT_ASKING, stride=stride), cache)
    except VramfitError as error:
        return f"Not calibrated: {error}"
    return f"Calibrated on {marked} validation films: `infer` says how sure each point is."


def certainties(trained: Trained, found: Predictions, cache: FilmCache) -> list[Certainty | None]:
    """How sure the points of each film of a cache are, in its native pixels.

    None without a calibration, or with one of points that were decoded otherwise, from another number of views or by
    other networks.
    """
    calibration = trained.calibration
    if calibration is None or found.areas is None or calibration.misfit(found.method, found.views, found.networks):
        return [None] * len(found.points)
    of, shape = calibration.of, trained.mean_shape
    rows = zip(_on_images(found.points, cache), found.confidence, found.areas, cache.letterboxes, strict=True)
    return [of(points, peaks, areas, shape).enlarged(1 / box.scale.mean()) for points, peaks, areas, box in rows]


def kept(trained: Trained, found: Predictions, cache: FilmCache) -> Kept | None:
    """How the network's certainty held on films whose points are known; None where it says nothing of them."""
    films, calibration = cache.film_set, trained.calibration
    sure = [each for each in certainties(trained, found, cache) if each is not None]
    if calibration is None or not sure:
        return None
    # Distances in native pixels, as the regions are, whatever the films' unit.
    errors = np.linalg.norm(found.points - true_points(films), axis=2)
    expected, known = np.stack([each.expected for each in sure]), np.isfinite(errors)
    sizes = scales(films).mean(axis=1)[:, None]
    promises = [
        Promise.of(level, np.stack([each.radii[place] for each in sure]), errors, sizes)
        for place, level in enumerate(calibration.levels)
    ]
    lacking = {film.id: _names(films.symbols, each) for film, each in zip(films.films, sure, strict=True)}
    return Kept(
        calibrated_on=calibration.films,
        promises=tuple(promises),
        spearman=rank_correlation(expected[known], errors[known]),
        doubtful={film: names for film, names in lacking.items() if names},
        unlike={film.id: each.unlike for film, each in zip(films.films, sure, strict=True) if each.unlike},
    )


def _names(symbols: tuple[str, ...], sure: Certainty) -> tuple[str, ...]:
    return tuple(symbol for symbol, sound in zip(symbols, sure.evidence, strict=True) if not sound)


def _on_images(points: Array, cache: FilmCache) -> Array:
    """NxKx2 native points in image pixels."""
    return np.stack([box.to_image(mine) for mine, box in zip(points, cache.letterboxes, strict=True)])


def _apart(film: Film) -> Array:
    """Kx2, the junior's points less the senior's; NaN where a film has not both."""
    if {"junior", "senior"} <= film.raters.keys():
        apart: Array = film.raters["junior"] - film.raters["senior"]
        return apart
    return np.full_like(film.points, np.nan)

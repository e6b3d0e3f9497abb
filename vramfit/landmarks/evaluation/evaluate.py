"""How good a trained network is on films that it may not have seen, and beside what that must be read.

N films, K landmarks. Intervals and tests are those of `vramfit.landmarks.evaluation.statistics`, which draws films, not
points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import UsageError
from vramfit.landmarks.check.screen import screened
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.films import FilmSet, Points
from vramfit.landmarks.data.formats import named, read_films
from vramfit.landmarks.data.marked import combine
from vramfit.landmarks.data.near_duplicates import SIDE, directions, thumbnails, twins
from vramfit.landmarks.data.raters import Annotator
from vramfit.landmarks.evaluation.certainty import calibrate, kept
from vramfit.landmarks.evaluation.ensemble import ensemble_points, load_ensemble, open_caches
from vramfit.landmarks.evaluation.films_at_once import films_at_once
from vramfit.landmarks.evaluation.measures import measure_errors
from vramfit.landmarks.evaluation.metrics import (
    Evaluation,
    baseline_points,
    describe_pixel_sizes,
    errors_of,
    evaluate_points,
    true_points,
)
from vramfit.landmarks.evaluation.predict_points import Predictions, recovering
from vramfit.landmarks.evaluation.relative import relative_scores
from vramfit.landmarks.evaluation.report import EvaluationReport
from vramfit.landmarks.model.decode import Method
from vramfit.landmarks.model.trained_network import Trained, load_trained
from vramfit.records import OomEvent
from vramfit.training.run_options import DeviceChoice

Array = NDArray[np.float64]
# Called with what is being done, the films done and the films in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What to judge by: `split` is train, valid or test; `batch_size` the films at once, None to choose.

    `views` is how often each film is seen; `landmarks` are the symbols to judge by, None for all that the checkpoint
    knows; `calibrate` keeps in the checkpoint what the errors on these films tell of those on others; `ensemble` are
    other checkpoints, with whose points those of the one judged are averaged.
    """

    dataset_path: Path
    split: str = "test"
    annotator: Annotator = "mean"
    landmarks: tuple[str, ...] | None = None
    method: Method = "dark"
    views: int = 1
    device: DeviceChoice = "auto"
    batch_size: int | None = None
    skip_bad: bool = False
    film_format: str | None = None
    cache_dir: Path | None = None
    calibrate: bool = False
    ensemble: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.calibrate and self.ensemble:
            raise UsageError("--calibrate is of one checkpoint's points; leave --ensemble out.")


@dataclass(frozen=True)
class Judged:
    """The films and landmarks that a checkpoint was judged by, its points there (NxKx2 film pixels), and the report."""

    films: FilmSet
    points: Points
    report: EvaluationReport


def evaluate_checkpoint(
    checkpoint: str | Path,
    options: EvaluationOptions,
    *,
    progress: Progress = lambda *_: None,
    on_event: Callable[[OomEvent], None] = lambda _: None,
) -> EvaluationReport:
    """The report of `judge_checkpoint`, which says what may be raised."""
    return judge_checkpoint(checkpoint, options, progress=progress, on_event=on_event).report


def judge_checkpoint(
    checkpoint: str | Path,
    options: EvaluationOptions,
    *,
    progress: Progress = lambda *_: None,
    on_event: Callable[[OomEvent], None] = lambda _: None,
) -> Judged:
    """Judge a checkpoint on one split of a film set.

    Raises:
        UsageError: a landmark is asked for that the checkpoint does not know.
        CannotWrite: the checkpoint cannot keep its calibration.
        DataError: a checkpoint, film or annotation that cannot be used, or other landmarks than the checkpoint's.
        NoUsableGpu: `cuda` was asked for and cannot be used.
        OutOfMemory: a single film does not fit.

    """
    trained = load_trained(checkpoint, options.device)
    symbols = _chosen(trained, options.landmarks)
    films = screened(read_films(options.dataset_path, options.film_format)).of_split(
        options.split, options.annotator, skip_bad=options.skip_bad, landmarks=trained.landmarks
    )
    networks = load_ensemble(trained, options.ensemble, options.device)
    opened = partial(
        FilmCache.open,
        folder=options.cache_dir,
        skip_bad=options.skip_bad,
        progress=lambda done, total: progress("decoding films", done, total),
    )
    caches = open_caches(networks, films, opened)
    cache = caches[0]
    predictions = _predicted(networks, caches, options, progress, on_event)
    if options.calibrate:
        trained = calibrate(trained, predictions, cache)
    judged = predictions.of_landmarks(films.symbols, symbols)
    films = cache.film_set.of_landmarks(symbols)
    report = report_on(judged, trained, films, options, _leaked(networks, cache))
    note = trained.calibration and trained.calibration.misfit(
        predictions.method, predictions.views, predictions.networks
    )
    certainty = {"certainty": kept(trained, predictions, cache), "certainty_note": note}
    return Judged(films, judged.points, report.model_copy(update=certainty))


def _predicted(
    networks: Sequence[Trained],
    caches: Sequence[FilmCache],
    options: EvaluationOptions,
    progress: Progress,
    on_event: Callable[[OomEvent], None],
) -> Predictions:
    sizes = [films_at_once(each, len(caches[0]), options.method)[0] for each in networks if not options.batch_size]
    batch_size, looks = options.batch_size or min(sizes), sum(map(len, caches))
    return ensemble_points(
        [(each, recovering(each.step, batch_size, on_event)) for each in networks],
        caches,
        batch_size=batch_size,
        method=options.method,
        views=options.views,
        on_batch=lambda done: progress("finding landmarks", done, looks),
    )


def report_on(
    predictions: Predictions,
    trained: Trained,
    films: FilmSet,
    options: EvaluationOptions,
    leaked: dict[str, str] | None = None,
) -> EvaluationReport:
    """The report of predictions for these films and their landmarks, all of them and in their order."""
    errors = errors_of(predictions.points, films)
    return EvaluationReport(
        checkpoint=str(trained.path),
        ensemble=tuple(map(str, options.ensemble)),
        epoch=trained.epoch,
        model=trained.options.model,
        image_size=trained.options.image_size,
        trained_on_annotator=str(trained.config.get("annotator", "")),
        dataset=str(films.root),
        split=films.split,
        annotator=films.annotator,
        mean_rounds_up=films.mean_rounds_up,
        decode=options.method,
        views=options.views,
        films=len(films),
        landmarks={landmark.symbol: landmark.title for landmark in films.landmarks},
        left_out=tuple(landmark.symbol for landmark in trained.landmarks if landmark not in films.landmarks),
        pixel_sizes=describe_pixel_sizes(films),
        loss=predictions.loss,
        evaluation=evaluate_points(predictions.points, films),
        raters=by_rater(predictions.points, films),
        baseline=evaluate_points(_baseline_points(trained, films), films),
        inter_rater=inter_rater(films),
        leaked=leaked,
        measures=measure_errors(predictions.points, films),
        **_by_film(films, errors),
        skipped={skipped.id: skipped.reason for skipped in films.skipped},
    )


def _by_film(films: FilmSet, errors: Array) -> dict[str, Any]:
    """The fields of a report on each film, under the names of the set's unit."""
    means = {film.id: mean for film, mean in zip(films.films, film_means(errors), strict=True)}
    rows = {film.id: _plain(mine) for film, mine in zip(films.films, errors, strict=True)}
    if films.unit == "mm":
        return {"film_mre_mm": means, "errors_mm": rows}
    relative = relative_scores(errors, true_points(films))
    return {
        "film_mre_mm": {},
        "errors_mm": {},
        "film_mre_px": means,
        "errors_px": rows,
        "unit": "px",
        "relative": relative,
    }


def by_rater(points: Points, films: FilmSet) -> dict[str, Evaluation]:
    """NxKx2 points judged by each of several raters, on the films that each marked, and by their mean on all films."""
    names = sorted({rater for film in films.films for rater in film.raters})
    if len(names) < 2:
        return {}
    found: dict[str, Evaluation] = {}
    for rater in names:
        places = [place for place, film in enumerate(films.films) if rater in film.raters]
        theirs = (replace(films.films[place], points=films.films[place].raters[rater]) for place in places)
        found[rater] = evaluate_points(points[places], replace(films, films=tuple(theirs)))
    means = (replace(film, points=combine(film.raters, rounds_up=films.mean_rounds_up)) for film in films.films)
    return {**found, "mean": evaluate_points(points, replace(films, films=tuple(means)))}


def inter_rater(films: FilmSet) -> Evaluation | None:
    """The junior rater judged by the senior, on the films that both marked; None where there are none."""
    both = [film for film in films.films if {"junior", "senior"} <= film.raters.keys()]
    if not both:
        return None
    by_senior = replace(films, films=tuple(replace(film, points=film.raters["senior"]) for film in both))
    return evaluate_points(np.stack([film.raters["junior"] for film in both]), by_senior)


def film_means(errors_mm: Array) -> list[float | None]:
    """The mean of each row of NxK errors; None where none is known."""
    known = [mine[np.isfinite(mine)] for mine in errors_mm]
    return [float(mine.mean()) if mine.size else None for mine in known]


def _chosen(trained: Trained, wanted: Sequence[str] | None) -> tuple[str, ...]:
    known = [landmark.symbol for landmark in trained.landmarks]
    symbols = [named(symbol).symbol for symbol in wanted or known]
    for symbol in symbols:
        if symbol not in known:
            raise UsageError(f"{trained.path} knows no landmark '{symbol}'; choose from {', '.join(known)}.")
    return tuple(dict.fromkeys(symbols))


def _leaked(networks: Sequence[Trained], cache: FilmCache) -> dict[str, str] | None:
    """Films that show the same as one that a network was trained on, and the name of that one."""
    found: dict[str, str] = {}
    for names, seen in (each.seen or ((), np.empty(0, dtype=np.uint8)) for each in networks):
        if seen.shape[1:] != (SIDE, SIDE):
            return None  # not known, or thumbnails of another version, which compare with nothing
        pairs = twins(directions(thumbnails(cache)), directions(seen))
        found |= {cache.film_set.films[place].id: names[twin] for place, twin in pairs}
    return found


def _baseline_points(trained: Trained, films: FilmSet) -> Array:
    shape = trained.mean_shape[[trained.landmarks.index(landmark) for landmark in films.landmarks]]
    return baseline_points(shape, films, trained.options.image_size)


def _plain(errors: Array) -> tuple[float | None, ...]:
    return tuple(float(error) if np.isfinite(error) else None for error in errors)

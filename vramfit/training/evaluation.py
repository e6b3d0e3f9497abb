"""How good a trained network is on films that it may not have seen, and beside what that must be read.

N films, K landmarks. The interval of the MRE is Efron's percentile bootstrap over films: landmarks of one film are not
independent, films are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vramfit import __version__
from vramfit.landmarks.cache import FilmCache
from vramfit.landmarks.decode import Method
from vramfit.landmarks.films import Annotator, FilmSet
from vramfit.landmarks.formats import load_films
from vramfit.landmarks.letterbox import Letterbox
from vramfit.landmarks.metrics import (
    Evaluation,
    evaluate_points,
    pixel_sizes_mm,
    radial_errors_mm,
    true_points,
)
from vramfit.records import OomEvent, Record
from vramfit.training.options import DeviceChoice
from vramfit.training.score import Predictions, predict_points, recovering
from vramfit.training.trained import Trained, load_trained

Array = NDArray[np.float64]
# Called with what is being done, the films done and the films in all.
Progress = Callable[[str, int, int], None]

RESAMPLES = 2000
BATCH_SIZE = 4


class EvaluationReport(Record):
    """Everything that can be said of a checkpoint on one split.

    `interval_mm` is the 95 % interval of the MRE, None for fewer than two films; `baseline` the mean training position
    of each landmark, which sees no film; `inter_rater` one rater judged by the other, None where no film has both;
    `pixel_size_mm` the smallest and largest used; `film_mre_mm` the MRE of each film.
    """

    schema_version: Literal[1] = 1
    vramfit_version: str = __version__
    checkpoint: str
    epoch: int
    model: str
    image_size: tuple[int, int]
    trained_on_annotator: str
    dataset: str
    split: str
    annotator: Annotator
    decode: Method
    films: int
    landmarks: dict[str, str]
    pixel_size_mm: tuple[float, float]
    loss: float
    evaluation: Evaluation
    interval_mm: tuple[float, float] | None
    resamples: int = RESAMPLES
    baseline: Evaluation
    inter_rater: Evaluation | None
    film_mre_mm: dict[str, float | None]
    skipped: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What to judge by: `split` is train, valid or test; `batch_size` the films at once, fewer after an OOM."""

    dataset_path: Path
    split: str = "test"
    annotator: Annotator = "mean"
    method: Method = "dark"
    device: DeviceChoice = "auto"
    batch_size: int = BATCH_SIZE
    skip_bad: bool = False
    film_format: str | None = None
    cache_dir: Path | None = None


def evaluate_checkpoint(
    checkpoint: str | Path,
    options: EvaluationOptions,
    *,
    progress: Progress = lambda *_: None,
    on_event: Callable[[OomEvent], None] = lambda _: None,
) -> EvaluationReport:
    """Judge a checkpoint on one split of a film set.

    Raises:
        DataError: a checkpoint, film or annotation that cannot be used, or other landmarks than the checkpoint's.
        NoUsableGpu: `cuda` was asked for and cannot be used.
        OutOfMemory: a single film does not fit.

    """
    trained = load_trained(checkpoint, options.device)
    films = load_films(
        options.dataset_path,
        options.split,
        options.annotator,
        film_format=options.film_format,
        skip_bad=options.skip_bad,
        landmarks=trained.landmarks,
    )
    cache = FilmCache.open(
        films,
        trained.options.image_size,
        folder=options.cache_dir,
        skip_bad=options.skip_bad,
        progress=lambda done, total: progress("decoding films", done, total),
    )
    predictions = predict_points(
        recovering(trained.step, options.batch_size, on_event),
        cache,
        batch_size=options.batch_size,
        stride=trained.options.heatmap_stride,
        method=options.method,
        on_batch=lambda done: progress("finding landmarks", done, len(cache)),
    )
    return report_on(predictions, trained, cache.film_set, options)


def report_on(
    predictions: Predictions, trained: Trained, films: FilmSet, options: EvaluationOptions
) -> EvaluationReport:
    """The report of predictions for these films, all of them and in their order."""
    errors = radial_errors_mm(predictions.points, true_points(films), pixel_sizes_mm(films))
    sizes = pixel_sizes_mm(films)
    return EvaluationReport(
        checkpoint=str(trained.path),
        epoch=trained.epoch,
        model=trained.options.model,
        image_size=trained.options.image_size,
        trained_on_annotator=str(trained.config.get("annotator", "")),
        dataset=str(films.root),
        split=films.split,
        annotator=films.annotator,
        decode=options.method,
        films=len(films),
        landmarks={landmark.symbol: landmark.title for landmark in films.landmarks},
        pixel_size_mm=(float(sizes.min()), float(sizes.max())),
        loss=predictions.loss,
        evaluation=evaluate_points(predictions.points, films),
        interval_mm=bootstrap_interval(errors),
        baseline=evaluate_points(_baseline_points(trained, films), films),
        inter_rater=inter_rater(films),
        film_mre_mm=_film_means(errors, films),
        skipped={skipped.id: skipped.reason for skipped in films.skipped},
    )


def inter_rater(films: FilmSet) -> Evaluation | None:
    """The junior rater judged by the senior, on the films that both marked; None where there are none."""
    both = [film for film in films.films if {"junior", "senior"} <= film.raters.keys()]
    if not both:
        return None
    by_senior = replace(films, films=tuple(replace(film, points=film.raters["senior"]) for film in both))
    return evaluate_points(np.stack([film.raters["junior"] for film in both]), by_senior)


def bootstrap_interval(
    errors_mm: Array, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """The interval that holds the MRE of NxK radial errors with a probability of `level`: films drawn anew.

    NaN errors are left out. The same seed gives the same interval; None for fewer than two films.
    """
    known = np.isfinite(errors_mm)
    points = known.sum(axis=1)
    sums = np.where(known, errors_mm, 0).sum(axis=1)[points > 0]
    points = points[points > 0]
    if len(points) < 2:
        return None
    random = np.random.Generator(np.random.Philox(seed))
    # How often each film is drawn, resamples x N: the same as drawing N films with replacement.
    drawn = random.multinomial(len(points), np.full(len(points), 1 / len(points)), size=resamples)
    low, high = np.quantile((drawn @ sums) / (drawn @ points), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _baseline_points(trained: Trained, films: FilmSet) -> Array:
    boxes = [Letterbox.of(film.size, trained.options.image_size) for film in films.films]
    return np.stack([box.to_film(trained.mean_shape) for box in boxes])


def _film_means(errors: Array, films: FilmSet) -> dict[str, float | None]:
    known = [mine[np.isfinite(mine)] for mine in errors]
    return {film.id: float(mine.mean()) if mine.size else None for film, mine in zip(films.films, known, strict=True)}

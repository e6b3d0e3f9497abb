"""Reports of evaluations for tests, made from errors: no network ran."""

from pathlib import Path

import numpy as np

from vramfit.landmarks.data.films import Film, FilmSet, Landmark
from vramfit.landmarks.evaluation.evaluate import Judged, by_rater, film_means, inter_rater
from vramfit.landmarks.evaluation.metrics import describe_pixel_sizes, evaluate_points
from vramfit.landmarks.evaluation.report import EvaluationReport

SYMBOLS = ("A", "B", "N", "Me")
SIZE = (200, 240)


def make_judged(errors_mm, folder=Path("films"), **changes) -> Judged:
    """NxK errors as if a network had made them, to the right of points that both raters marked alike."""
    errors = np.asarray(errors_mm, dtype=np.float64)
    points = np.stack([np.linspace(20, 90, errors.shape[1]), np.linspace(30, 200, errors.shape[1])], axis=1)
    landmarks = tuple(Landmark(symbol, f"Point {symbol}") for symbol in SYMBOLS[: errors.shape[1]])
    films = tuple(
        Film(
            f"{number:03}", folder / f"{number:03}.png", SIZE, (0.5, 0.5), "M1", _masked(points, mine), _raters(points)
        )
        for number, mine in enumerate(errors)
    )
    film_set = FilmSet(folder, "test", "mean", landmarks, films)
    seen = np.stack([points] * len(errors))
    seen[..., 0] += np.nan_to_num(errors) / 0.5
    return Judged(film_set, seen, _report(film_set, seen, errors, changes))


def make_report(errors_mm, **changes) -> EvaluationReport:
    """The report of `make_judged`."""
    return make_judged(errors_mm, **changes).report


def _masked(points, errors):
    return np.where(np.isfinite(errors)[:, None], points, np.nan)


def _raters(points):
    return {"senior": points, "junior": points + 2}


def _report(films: FilmSet, seen, errors, changes) -> EvaluationReport:
    evaluation = evaluate_points(seen, films)
    figures = {
        "checkpoint": "first.pth",
        "epoch": 7,
        "model": "hrnet_w18",
        "image_size": (256, 256),
        "trained_on_annotator": "mean",
        "dataset": str(films.root),
        "split": films.split,
        "annotator": films.annotator,
        "mean_rounds_up": False,
        "decode": "dark",
        "films": len(films),
        "landmarks": {landmark.symbol: landmark.title for landmark in films.landmarks},
        "left_out": (),
        "pixel_sizes": describe_pixel_sizes(films),
        "loss": 1.0,
        "evaluation": evaluation,
        "raters": by_rater(seen, films),
        "baseline": evaluate_points(seen + 20, films),
        "inter_rater": inter_rater(films),
        "leaked": {},
        "film_mre_mm": dict(zip((film.id for film in films.films), film_means(errors), strict=True)),
        "errors_mm": {
            film.id: tuple(None if np.isnan(error) else float(error) for error in mine)
            for film, mine in zip(films.films, errors, strict=True)
        },
        "skipped": {},
    }
    return EvaluationReport.model_validate({**figures, **changes})

"""Whether one checkpoint is better than another: both judged on the same films, film by film.

N films, K landmarks. Every difference is the first checkpoint's error less the second's: below 0 the first is better.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data.films import Unit
from vramfit.landmarks.evaluation.evaluate import (
    EvaluationOptions,
    Judged,
    Progress,
    judge_checkpoint,
)
from vramfit.landmarks.evaluation.report import EvaluationReport
from vramfit.landmarks.evaluation.statistics import FLIPS, RESAMPLES, SEED, holm, paired_interval, sign_flip_p_values
from vramfit.records import OomEvent, Record

Array = NDArray[np.float64]


class Difference(Record):
    """A mean difference over films with its 95 % interval and p-value.

    Those in mm are None where the films have no pixel sizes, and those in pixels stand in their place. `films` are
    those where both have an error; `adjusted_p_value` holds for all landmarks together (Holm), and is the
    p-value itself where there is one question alone.
    """

    films: int
    mean_mm: float | None
    interval_mm: tuple[float, float] | None
    mean_px: float | None = None
    interval_px: tuple[float, float] | None = None
    p_value: float
    adjusted_p_value: float

    @property
    def mean(self) -> float:
        """The mean difference in whichever unit there is."""
        return (self.mean_mm if self.mean_px is None else self.mean_px) or 0.0

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its interval in that unit."""
        return self.interval_mm if self.mean_px is None else self.interval_px


class Comparison(Record):
    """Two checkpoints on the same films and landmarks: both reports, and what lies between them."""

    schema_version: Literal[1] = 1
    first: EvaluationReport
    second: EvaluationReport
    resamples: int = RESAMPLES
    flips: int = FLIPS
    seed: int = SEED
    overall: Difference
    landmarks: dict[str, Difference]


def compare_checkpoints(
    first: str | Path,
    second: str | Path,
    options: EvaluationOptions,
    *,
    progress: Progress = lambda *_: None,
    on_event: Callable[[OomEvent], None] = lambda _: None,
) -> tuple[Judged, Comparison]:
    """Judge two checkpoints on the same films, by the landmarks asked for or those of the first; the first, and both.

    An ensemble is that of the first; the second is judged alone.

    Raises:
        UsageError: the second knows no landmark of that name.
        VramfitError: what `judge_checkpoint` may raise.

    """
    judged = judge_checkpoint(first, options, progress=progress, on_event=on_event)
    same = replace(options, landmarks=tuple(judged.report.landmarks), ensemble=())
    other = judge_checkpoint(
        second,
        same,
        progress=lambda what, done, total: progress(f"{what}, second checkpoint", done, total),
        on_event=on_event,
    )
    return judged, compare(judged.report, other.report)


def compare(first: EvaluationReport, second: EvaluationReport) -> Comparison:
    """The paired comparison of two reports: of the MRE of each film, and of each landmark's error.

    Every film counts alike, however many of its points are known. Interval: bootstrap over films; p-value: random sign
    flips of whole films; see `vramfit.landmarks.evaluation.statistics` for the sources.

    Raises:
        DataError: the two were not judged on the same landmarks, or share no film.

    """
    if tuple(first.landmarks) != tuple(second.landmarks):
        raise DataError("The two checkpoints were judged on different landmarks; name common ones with --landmarks.")
    common = [film for film in first.errors if film in second.errors]
    differences = _errors(first, common) - _errors(second, common)
    known = np.isfinite(differences).any(axis=1)
    if not known.any():
        raise DataError("The two checkpoints have no film in common on which to compare them.")
    differences = differences[known]
    return Comparison(
        first=first,
        second=second,
        overall=_overall(np.nanmean(differences, axis=1), first.unit),
        landmarks=_by_landmark(tuple(first.landmarks), differences, first.unit),
    )


def _errors(report: EvaluationReport, films: list[str]) -> Array:
    errors = [report.errors[film] for film in films]
    return np.array(errors, dtype=np.float64).reshape(len(films), len(report.landmarks))


def _overall(differences: Array, unit: Unit) -> Difference:
    p_value = float(sign_flip_p_values(differences[:, None])[0])
    return _difference(differences, p_value, p_value, unit)


def _by_landmark(symbols: tuple[str, ...], differences: Array, unit: Unit) -> dict[str, Difference]:
    """Each landmark with a known difference; those without one are left out, of the adjustment too."""
    there = np.flatnonzero(np.isfinite(differences).any(axis=0))
    p_values = sign_flip_p_values(differences[:, there])
    rows = zip(there, p_values, holm(p_values), strict=True)
    return {symbols[k]: _difference(differences[:, k], float(p), float(adjusted), unit) for k, p, adjusted in rows}


def _difference(differences: Array, p_value: float, adjusted: float, unit: Unit) -> Difference:
    known = differences[np.isfinite(differences)]
    nothing: dict[str, Any] = {"mean_mm": None, "interval_mm": None}
    figures = {f"mean_{unit}": float(known.mean()), f"interval_{unit}": paired_interval(known)}
    return Difference(films=known.size, p_value=p_value, adjusted_p_value=adjusted, **{**nothing, **figures})

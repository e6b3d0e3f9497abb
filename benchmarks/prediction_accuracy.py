"""How wrong the prediction is, on measurements that other people published; and the fit of its constants.

    python benchmarks/calibration_traces.py --cache FOLDER      # traces the models; hours, can be broken off
    python benchmarks/prediction_accuracy.py --cache FOLDER     # scores what is traced so far
    python benchmarks/prediction_accuracy.py --cache FOLDER --fit   # also writes vramfit/prediction/constants.json

Errors and bands are of rows that the constants were not fitted on: models of a family (`resnet`, `vit`,
...: the word their names begin with) are held out together, in ten folds. What no fold chose is the shape of the
model: which parts of a workspace are replayed, and how a band's width grows, were settled with all rows in view. What
is said of sizes that ran and of sizes that had not run is said with the constants that are shipped, as `vramfit
probe` says it; none of its memory constants was fitted to those rows.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import calibration_times as times
import half_precision
import numpy as np
from calibration_peaks import DevicePeaks, LadderVerdicts, device_peaks, ladder_verdicts
from calibration_published import compare
from calibration_rows import REPOSITORY
from calibration_traces import DEFAULT_CACHE
from ending import keep
from numpy.typing import NDArray

from vramfit.files import write_atomically
from vramfit.prediction.constants import CONSTANTS, Bands, Constants, MemoryKind
from vramfit.records import Verdict
from vramfit.units import GIB

FOLDS = 10
CONSTANTS_FILE = REPOSITORY / "vramfit" / "prediction" / "constants.json"
Row = TypeVar("Row", DevicePeaks, times.TimedRow)
Array = NDArray[np.float64]


def family(model: str) -> str:
    """The word a model's name begins with."""
    found = re.match(r"(?:tf_|gluon_|legacy_)*([a-z]+)", model)
    return found[1] if found else model


def folds(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """Rows to fit on and rows to score, families whole; large families are dealt out first, to the smallest fold."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(family(row.row.model), []).append(row)
    dealt: list[list[str]] = [[] for _ in range(FOLDS)]
    sizes = [0] * FOLDS
    for name in sorted(families, key=lambda name: -len(families[name])):
        smallest = sizes.index(min(sizes))
        dealt[smallest].append(name)
        sizes[smallest] += len(families[name])
    for names in dealt:
        held = [row for name in names for row in families[name]]
        if held:
            yield [row for name, some in families.items() if name not in names for row in some], held


def errors(relative: Array) -> dict[str, float]:
    absolute = np.abs(relative)
    return {
        "n": len(relative),
        "median": round(float(np.median(absolute)), 4),
        "p90": round(float(np.quantile(absolute, 0.9)), 4),
        "bias": round(float(np.median(relative)), 4),
    }


# -- memory at device level -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Residuals:
    """Measured over predicted, less one; what the band's width is proportional to; the kind that gives its limits."""

    relative: Array
    scale: Array
    kinds: NDArray[np.str_]

    @property
    def scaled(self) -> Array:
        """Residuals in units of the scale."""
        return self.relative / self.scale


@dataclass(frozen=True)
class DeviceFit:
    """Bytes of the CUDA context of the measured runs, and what they reserve over the replay of their steps, by kind.

    Transformers reserve 2 to 3 % more there too, which BERT and T5 do not on other cards: it is of these runs' own
    loop, which is not known. So the shipped slack of what is not convolved is 1, and its band has the difference.
    """

    context_bytes: float
    slack: dict[MemoryKind, float]

    def predicted(self, rows: Sequence[DevicePeaks]) -> Array:
        """Bytes of each row."""
        _, reserved = _figures(rows)
        return self.context_bytes + np.array([self.slack[row.kind] for row in rows]) * reserved.mean(axis=1)


def fit_device(rows: Sequence[DevicePeaks]) -> DeviceFit:
    """Least squares of relative errors, robust against rows measured otherwise."""
    from scipy.optimize import least_squares

    measured, reserved = _figures(rows)
    convolved = np.array([row.kind == "float32 convolution" for row in rows])

    def residuals(values: Array) -> Array:
        slack = np.where(convolved, values[1], values[2])
        return measured / (values[0] * GIB + slack * reserved.mean(axis=1)) - 1

    context, slack, other = least_squares(residuals, (1.5, 1.0, 1.0), loss="cauchy", f_scale=0.03).x
    return DeviceFit(context * GIB, {"float32 convolution": float(slack), "float32 other": float(other)})


def device_residuals(rows: Sequence[DevicePeaks], fitted: DeviceFit) -> Residuals:
    measured, reserved = _figures(rows)
    predicted = fitted.predicted(rows)
    spread = np.ptp(reserved, axis=1)
    scale = np.hypot(CONSTANTS.bands.memory_base, np.hypot(CONSTANTS.bands.floor_bytes, spread / 2) / predicted)
    return Residuals(measured / predicted - 1, scale, np.array([row.kind for row in rows]))


def as_shipped(rows: Sequence[DevicePeaks], fitted: DeviceFit) -> Residuals:
    """Residuals with the slack of convolutions alone, and the band's scale of what the job itself takes."""
    return device_residuals(rows, replace(fitted, slack={**fitted.slack, "float32 other": 1.0}))


def _figures(rows: Sequence[DevicePeaks]) -> tuple[Array, Array]:
    measured = np.array([row.row.device_used_bytes for row in rows], dtype=np.float64)
    return measured, np.array([row.reserved_bytes for row in rows], dtype=np.float64)


@dataclass(frozen=True)
class Held:
    """Rows by fold with their residuals, each by a model that was fitted without the fold's families."""

    folds: tuple[Residuals, ...]

    @classmethod
    def out(cls, rows: Sequence[Row], fit: Callable[[Any], Any], residuals: Callable[[Any, Any], Residuals]) -> "Held":
        """Fit once a fold, on the rows of the others."""
        return cls(tuple(residuals(test, fit(train)) for train, test in folds(rows)))

    @property
    def relative(self) -> Array:
        """Measured over predicted, less one, of every row."""
        return np.concatenate([fold.relative for fold in self.folds])

    def scaled(self, kind: str, without: int | None = None) -> Array:
        """The scaled residuals of a kind, of all folds or of all but one."""
        others = [fold for number, fold in enumerate(self.folds) if number != without]
        return np.concatenate([fold.scaled[fold.kinds == kind] for fold in others])

    def limits(self, kind: str, without: int | None = None) -> tuple[float, float]:
        """The 5 % and the 95 % quantile of the scaled residuals of a kind."""
        low, high = np.quantile(self.scaled(kind, without), (0.05, 0.95))
        return float(low), float(high)

    def band(self) -> dict[str, float]:
        """How many rows of each fold lie in the band that the other folds give, and how wide it is.

        Residuals of rows that were fitted on would be too small to make a band of: these are all held out
        (cross-conformal prediction, Vovk 2015).
        """
        inside, widths = [], []
        for number, fold in enumerate(self.folds):
            bounds = {kind: self.limits(kind, without=number) for kind in np.unique(fold.kinds)}
            low, high = np.array([bounds[kind] for kind in fold.kinds]).T
            inside.append((low <= fold.scaled) & (fold.scaled <= high))
            widths.append((high - low) * fold.scale / (1 + fold.relative))
        return {
            "inside": round(float(np.mean(np.concatenate(inside))), 4),
            "median_width": round(float(np.median(np.concatenate(widths))), 4),
        }

    def score(self) -> dict[str, Any]:
        """Errors of the predictions and the band's figures."""
        return {**errors(1 / (1 + self.relative) - 1), "band": self.band()}


# -- what fits an RTX 3090 --------------------------------------------------------------------------------------------


def right(row: LadderVerdicts) -> bool:
    """Whether the size that ran is said to run, if need be with its cache released, and the next one not to."""
    return row.ran[1] and not (row.above is not None and row.above[1])


def judged_right(row: LadderVerdicts) -> bool:
    """Whether the verdict on the size that ran is not `over_budget`, and that on the next one is."""
    return row.ran[0] is not Verdict.OVER_BUDGET and (row.above is None or row.above[0] is Verdict.OVER_BUDGET)


def shares(verdicts: Sequence[str]) -> dict[str, float]:
    """How often each verdict was given."""
    counted = Counter(verdicts)
    return {"n": len(verdicts), **{name: round(count / len(verdicts), 4) for name, count in counted.most_common()}}


def score_verdicts(rows: Sequence[LadderVerdicts]) -> dict[str, Any]:
    """What is said of sizes that ran, and of the next ones, which had not run."""
    return {
        "n": len(rows),
        "with_upper_bound": sum(row.above is not None for row in rows),
        "right": round(float(np.mean([right(row) for row in rows])), 4),
        "verdicts_right": round(float(np.mean([judged_right(row) for row in rows])), 4),
        "ran": shares([row.ran[0] for row in rows]),
        "had_not_run": shares([row.above[0] for row in rows if row.above is not None]),
    }


# -- time -------------------------------------------------------------------------------------------------------------


def time_residuals(rows: Sequence[times.TimedRow], fitted: times.Parameters) -> Residuals:
    relative = np.expm1(-times.log_errors(rows, fitted))
    return Residuals(relative, np.ones(len(relative)), np.full(len(relative), "time"))


# -- all --------------------------------------------------------------------------------------------------------------


def score(cache: Path) -> dict[str, Any]:
    device, timed = device_peaks(cache), times.timed_rows(cache)
    published = compare()
    return {
        "device_a100": Held.out(device, fit_device, device_residuals).score(),
        "half_precision": half_precision.score(cache, float32_residuals(device)),
        "ladder_rtx3090": score_verdicts(ladder_verdicts(cache)),
        "time_rtx3090": Held.out(timed, times.fit, time_residuals).score(),
        "published": errors(np.array([row.predicted_bytes / row.measured_bytes - 1 for row in published])),
        "published_rows": {row.name: round(row.predicted_bytes / row.measured_bytes - 1, 4) for row in published},
    }


def float32_residuals(device: Sequence[DevicePeaks]) -> dict[MemoryKind, list[float]]:
    """Scaled residuals of the A100's rows, held out, with the slack that is shipped."""
    held = Held.out(device, fit_device, as_shipped)
    kinds: tuple[MemoryKind, ...] = ("float32 convolution", "float32 other")
    return {kind: held.scaled(kind).tolist() for kind in kinds}


def fit_all(cache: Path) -> Constants:
    device, timed = device_peaks(cache), times.timed_rows(cache)
    halves, float32 = half_precision.held_out(cache), float32_residuals(device)
    duration = Held.out(timed, times.fit, time_residuals).limits("time")
    memory = {
        kind: half_precision.limits_of(halves, kind, without=None, more=float32.get(kind, ()))
        for kind in CONSTANTS.hidden.slack
    }
    bands = Bands(
        fitted_to=f"held-out residuals of {len(device)} rows of GPUMemNet (A100, float32), {len(halves)} of "
        f"half_precision.csv (L40S, H100, H200, RTX 3070, T4), {len(timed)} of timm's benchmark (RTX 3090)",
        memory_base=CONSTANTS.bands.memory_base,
        floor_bytes=CONSTANTS.bands.floor_bytes,
        memory={kind: (round(low, 3), round(high, 3)) for kind, (low, high) in memory.items()},
        time=(round(1 + duration[0], 3), round(1 + duration[1], 3)),
    )
    context = half_precision.fit_context(cache)
    slack = fit_device(device).slack["float32 convolution"]
    hidden = CONSTANTS.hidden.model_copy(
        update={
            "context": context,
            "slack": {**CONSTANTS.hidden.slack, "float32 convolution": round(slack, 4)},
        }
    )
    fitted_to = f"{len(timed)} steps of timm's benchmark (RTX 3090, fp16 AMP, torch 1.12)"
    return Constants(hidden=hidden, time=times.constants(times.fit(timed), fitted_to), bands=bands)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder of the traces")
    parser.add_argument("--fit", action="store_true", help="write the constants too")
    options = parser.parse_args()
    if options.fit:
        constants = fit_all(options.cache)
        write_atomically(CONSTANTS_FILE, (constants.model_dump_json(indent=2) + "\n").encode())
    keep("prediction_accuracy", score(options.cache))


if __name__ == "__main__":
    main()

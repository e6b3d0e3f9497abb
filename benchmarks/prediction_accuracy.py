"""How wrong the prediction is, on measurements that other people published; and the fit of its constants.

    python benchmarks/calibration_traces.py --cache FOLDER      # traces the models; hours, can be broken off
    python benchmarks/prediction_accuracy.py --cache FOLDER     # scores what is traced so far
    python benchmarks/prediction_accuracy.py --cache FOLDER --fit   # also writes vramfit/prediction/constants.json

Every score is of rows that the constants were not fitted on: models of a family (`resnet`, `vit`, ...) are held out
together, in ten folds.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import calibration_times as times
import numpy as np
from calibration_peaks import LIMITS, DevicePeaks, LadderPeaks, device_peaks, ladder_peaks
from calibration_published import compare
from calibration_rows import REPOSITORY
from calibration_traces import DEFAULT_CACHE
from numpy.typing import NDArray

from vramfit.files import write_atomically
from vramfit.prediction.constants import CONSTANTS, Bands, Constants

FOLDS = 10
RESULTS = REPOSITORY / "benchmarks" / "results" / "prediction_accuracy.json"
CONSTANTS_FILE = REPOSITORY / "vramfit" / "prediction" / "constants.json"
Row = TypeVar("Row", DevicePeaks, LadderPeaks, times.TimedRow)
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
    """Measured over predicted, less one; and what the band's width is proportional to."""

    relative: Array
    scale: Array

    @property
    def scaled(self) -> Array:
        """Residuals in units of the scale."""
        return self.relative / self.scale


def fit_device(rows: Sequence[DevicePeaks]) -> float:
    """The context in bytes that explains the rows best."""
    return float(np.median([row.row.device_used_bytes - np.mean(row.reserved_bytes) for row in rows]))


def device_residuals(rows: Sequence[DevicePeaks], context: float) -> Residuals:
    measured = np.array([row.row.device_used_bytes for row in rows], dtype=np.float64)
    reserved = np.array([row.reserved_bytes for row in rows], dtype=np.float64)
    predicted = reserved.mean(axis=1) + context
    spread = reserved.max(axis=1) - reserved.min(axis=1)
    return Residuals(measured / predicted - 1, CONSTANTS.bands.memory_base + spread / 2 / predicted)


def score_bands(
    rows: Sequence[Row], fit: Callable[[Any], Any], residuals: Callable[[Any, Any], Residuals]
) -> tuple[dict[str, float], dict[str, float]]:
    """Errors of held-out rows; and how many lie in the band that the other rows' residuals give, and its width."""
    relative, inside, widths = [], [], []
    for train, test in folds(rows):
        fitted = fit(train)
        low, high = np.quantile(residuals(train, fitted).scaled, (0.05, 0.95))
        found = residuals(test, fitted)
        relative.append(found.relative)
        inside.append((low <= found.scaled) & (found.scaled <= high))
        widths.append((high - low) * found.scale / (1 + found.relative))
    band = {
        "inside": round(float(np.mean(np.concatenate(inside))), 4),
        "median_width": round(float(np.median(np.concatenate(widths))), 4),
    }
    return errors(1 / (1 + np.concatenate(relative)) - 1), band


# -- what fits an RTX 3090 --------------------------------------------------------------------------------------------


def right(row: LadderPeaks, limit: int) -> bool:
    return row.ran[limit] and not (row.above is not None and row.above[limit])


def score_ladder(rows: Sequence[LadderPeaks]) -> dict[str, float]:
    """Rows whose size that ran is predicted to fit and whose next size is not, at a context fitted elsewhere."""
    judged = []
    for train, test in folds(rows):
        best = max(range(len(LIMITS)), key=lambda limit: (sum(right(row, limit) for row in train), -limit))
        judged += [right(row, best) for row in test]
    bounded = sum(row.above is not None for row in rows)
    return {"n": len(rows), "with_upper_bound": bounded, "right": round(float(np.mean(judged)), 4)}


# -- time -------------------------------------------------------------------------------------------------------------


def time_residuals(rows: Sequence[times.TimedRow], fitted: times.Parameters) -> Residuals:
    relative = np.expm1(-times.log_errors(rows, fitted))
    return Residuals(relative, np.ones(len(relative)))


# -- all --------------------------------------------------------------------------------------------------------------


def score(cache: Path) -> dict[str, Any]:
    device, ladder, timed = device_peaks(cache), ladder_peaks(cache), times.timed_rows(cache)
    published = compare()
    device_errors, device_band = score_bands(device, fit_device, device_residuals)
    time_errors, time_band = score_bands(timed, times.fit, time_residuals)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device_a100": {**device_errors, "band": device_band},
        "ladder_rtx3090": score_ladder(ladder),
        "time_rtx3090": {**time_errors, "band": time_band},
        "published": errors(np.array([row.predicted_bytes / row.measured_bytes - 1 for row in published])),
        "published_rows": {row.name: round(row.predicted_bytes / row.measured_bytes - 1, 4) for row in published},
    }


def fit_all(cache: Path) -> Constants:
    device, timed = device_peaks(cache), times.timed_rows(cache)
    parameters = times.fit(timed)
    memory = np.quantile(device_residuals(device, fit_device(device)).scaled, (0.05, 0.95))
    duration = 1 + np.quantile(time_residuals(timed, parameters).scaled, (0.05, 0.95))
    bands = Bands(
        fitted_to=f"residuals of {len(device)} rows of GPUMemNet (A100), {len(timed)} of timm's benchmark (RTX 3090)",
        memory_base=CONSTANTS.bands.memory_base,
        memory=(round(float(memory[0]), 3), round(float(memory[1]), 3)),
        time=(round(float(duration[0]), 3), round(float(duration[1]), 3)),
    )
    fitted_to = f"{len(timed)} steps of timm's benchmark (RTX 3090, fp16 AMP, torch 1.12)"
    return Constants(hidden=CONSTANTS.hidden, time=times.constants(parameters, fitted_to), bands=bands)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder of the traces")
    parser.add_argument("--fit", action="store_true", help="write the constants too")
    options = parser.parse_args()
    if options.fit:
        constants = fit_all(options.cache)
        write_atomically(CONSTANTS_FILE, (constants.model_dump_json(indent=2) + "\n").encode())
    result = json.dumps(score(options.cache), indent=2)
    write_atomically(RESULTS, (result + "\n").encode())
    print(result)


if __name__ == "__main__":
    main()

"""Steps of the ladder rows as arrays of operations, kept on disk, and the fit of the roofline's constants to them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from calibration_rows import LadderRow, ladder_rows
from calibration_traces import load
from numpy.typing import NDArray

from vramfit.cards import find_card
from vramfit.files import write_atomically
from vramfit.prediction.constants import TimeConstants
from vramfit.prediction.roofline import kind_of, rate
from vramfit.prediction.trace_records import OperationRecord
from vramfit.prediction.transforms.rescale import TraceCurve

KINDS = (
    "product",
    "moving",
    "normalisation",
    *(f"{kernel} {layout}" for kernel in ("dense", "pointwise", "grouped", "depthwise") for layout in ("nchw", "nhwc")),
    "odd grouped nhwc",
)
CARD = find_card("rtx3090")
# Natural logarithms of: rate share and bandwidth share of each kind, kernel time, launch time.
Parameters = NDArray[np.float64]
START = np.log([share for _ in KINDS for share in (0.5, 0.7)] + [3e-6, 8e-6])


@dataclass(frozen=True)
class TimedRow:
    """One measured step: columns of `work` are kind, seconds at the peak rate, seconds at the bandwidth, count."""

    row: LadderRow
    work: NDArray[np.float64]


def timed_rows(cache: Path) -> list[TimedRow]:
    found = []
    for row in ladder_rows():
        path = cache / f"{row.key}-{row.fits}-{row.channels_last}.npy"
        if not path.exists():
            trace = load(cache, row.key)
            if not isinstance(trace, TraceCurve):
                continue
            work = _work(trace.at(row.fits).part("step 2"), row.channels_last)
            write_atomically(path, lambda file, work=work: np.save(file, work))
        found.append(TimedRow(row, np.load(path)))
    return found


def _work(operations: Sequence[OperationRecord], channels_last: bool) -> NDArray[np.float64]:
    # The traced job has a gradient scaler, the measured one had none.
    counted = Counter(_figures(op, channels_last) for op in operations if not op.name.startswith("_amp"))
    return np.array([(*figures, count) for figures, count in counted.items()], dtype=np.float64)


def _figures(operation: OperationRecord, channels_last: bool) -> tuple[float, float, float]:
    if operation.convolution is not None:
        operation = replace(operation, convolution=replace(operation.convolution, channels_last=channels_last))
    moved = operation.read_bytes + operation.written_bytes
    return (
        KINDS.index(kind_of(operation)),
        operation.flops / rate(operation, CARD),
        moved / CARD.bandwidth_bytes_per_s,
    )


def step_s(row: TimedRow, parameters: Parameters) -> float:
    values = np.exp(parameters)
    kind, computing, moving, count = row.work.T
    which = kind.astype(int)
    each = values[-2] + np.maximum(computing / values[2 * which], moving / values[2 * which + 1])
    return max(float(each @ count), float(count.sum() * values[-1]))


def log_errors(rows: Sequence[TimedRow], parameters: Parameters) -> NDArray[np.float64]:
    return np.array([np.log(step_s(row, parameters) / row.row.step_s) for row in rows])


def fit(rows: Sequence[TimedRow]) -> Parameters:
    """Least squares of log errors, robust against rows measured otherwise; shares stay near what is plausible."""
    from scipy.optimize import least_squares

    def residuals(parameters: Parameters) -> NDArray[np.float64]:
        return np.concatenate([log_errors(rows, parameters), 0.05 * (parameters - START)])

    found: Parameters = least_squares(residuals, START, loss="soft_l1", f_scale=0.1, max_nfev=25).x
    return found


def constants(parameters: Parameters, fitted_to: str) -> TimeConstants:
    values = [float(f"{value:.4g}") for value in np.exp(parameters)]
    shares = {kind: (values[2 * index], values[2 * index + 1]) for index, kind in enumerate(KINDS)}
    return TimeConstants(fitted_to=fitted_to, shares=shares, kernel_s=values[-2], launch_s=values[-1])

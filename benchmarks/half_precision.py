"""How wrong the prediction is in half precision on L40S, H100, H200, RTX 3070 and T4, families held out.

A family (BERT, T5, RegNet, ResNet, YOLO) is scored by what the others say: the context of each card from the median of
their rows, what cuDNN keeps on Hopper, and the band of each kind of job. Rows of a device are of what NVML shows, so
the driver's reserve, as the file has it, is added to what is predicted of the job.

What no fold chose: that half precision is replayed without workspaces since Ampere and with copies on Hopper, and that
there is no slack, were settled with all rows in view.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from half_precision_peaks import HalfPeaks, half_peaks
from numpy.typing import NDArray

from vramfit.cards import find_card
from vramfit.prediction.constants import CONSTANTS, ContextConstants, MemoryKind
from vramfit.prediction.overheads import context_bytes, slack
from vramfit.units import GIB

Array = NDArray[np.float64]
Limits = tuple[float, float]
# No band is narrower, in units of its scale: versions of drivers and libraries differ by as much.
NARROWEST = 1.0
_SMALL_BYTES = 8 * GIB
_FAMILIES = {"T5": "t5", "Bert": "bert", "regnet": "regnet", "resnet": "resnet", "YOLO": "yolo"}


def family(peaks: HalfPeaks) -> str:
    """The family of a row's network."""
    return next(name for word, name in _FAMILIES.items() if word in peaks.row.model)


@dataclass(frozen=True)
class HalfFit:
    """Bytes of the context of each GPU."""

    contexts: dict[str, float]

    def predicted(self, peaks: HalfPeaks) -> float:
        """Bytes that the row should show."""
        reserved = float(np.mean(peaks.reserved_bytes)) * slack(peaks.kind, find_card(peaks.row.gpu))
        return reserved if peaks.row.reserved else reserved + self.contexts[peaks.row.gpu] + peaks.row.driver_bytes


def fit(rows: Sequence[HalfPeaks]) -> HalfFit:
    """The medians of what is left of each GPU's rows."""
    device = [row for row in rows if not row.row.reserved]
    bare = HalfFit(dict.fromkeys({row.row.gpu for row in device}, 0.0))
    left: dict[str, list[float]] = {}
    for row in device:
        left.setdefault(row.row.gpu, []).append(row.row.measured_bytes - bare.predicted(row))
    return HalfFit({gpu: float(np.median(values)) for gpu, values in left.items()})


@dataclass(frozen=True)
class Residual:
    """One row, what was predicted of it by the other families, and its error in units of the band's scale."""

    peaks: HalfPeaks
    predicted: float
    scaled: float

    @property
    def relative(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.peaks.row.measured_bytes - 1


def held_out(cache: Path) -> list[Residual]:
    """Every fair row by a fit without its family."""
    rows = half_peaks(cache)
    found = []
    for name in dict.fromkeys(map(family, rows)):
        fitted = fit([row for row in rows if family(row) != name])
        found += [_residual(row, fitted) for row in rows if family(row) == name]
    return found


def _residual(peaks: HalfPeaks, fitted: HalfFit) -> Residual:
    predicted = fitted.predicted(peaks)
    # The band is of what the job takes: the driver's reserve is known.
    job = predicted - (0 if peaks.row.reserved else peaks.row.driver_bytes)
    bands = CONSTANTS.bands
    floor = 0 if peaks.row.reserved else bands.floor_bytes
    scale = float(np.sqrt((bands.memory_base * job) ** 2 + floor**2 + (np.ptp(peaks.reserved_bytes) / 2) ** 2))
    return Residual(peaks, predicted, (peaks.row.measured_bytes - predicted) / scale)


def limits(scaled: Iterable[float]) -> Limits:
    """The 5 % and the 95 % quantile of scaled residuals, at least `NARROWEST` from the middle."""
    low, high = np.quantile(np.array(list(scaled)), (0.05, 0.95), method="inverted_cdf")
    return min(float(low), -NARROWEST), max(float(high), NARROWEST)


def limits_of(
    residuals: Sequence[Residual], kind: MemoryKind, without: str | None, more: Sequence[float] = ()
) -> Limits:
    """The limits of a kind of job, of all families but one; `more` are scaled residuals of other measurements.

    A kind that no other family has is judged by all kinds together.
    """
    others = [one for one in residuals if family(one.peaks) != without]
    alike = [one.scaled for one in others if one.peaks.kind == kind] + list(more)
    return limits(alike or [one.scaled for one in others])


def score(cache: Path, more: Mapping[MemoryKind, Sequence[float]]) -> dict[str, Any]:
    """Errors and bands of held-out rows; `more` are scaled residuals of other measurements of each kind."""
    residuals = held_out(cache)
    inside, above = [], []
    for one in residuals:
        kind = one.peaks.kind
        low, high = limits_of(residuals, kind, family(one.peaks), more.get(kind, ()))
        inside.append(low <= one.scaled <= high)
        above.append(one.scaled > high)
    chosen = {
        "device": [not one.peaks.row.reserved for one in residuals],
        "reserved": [one.peaks.row.reserved for one in residuals],
        "batch_1": [one.peaks.row.batch == 1 for one in residuals],
        "under_8_gib": [one.peaks.row.measured_bytes < _SMALL_BYTES for one in residuals],
        **{f"family_{name}": [family(one.peaks) == name for one in residuals] for name in _FAMILIES.values()},
        **{
            kind: [one.peaks.kind == kind for one in residuals]
            for kind in dict.fromkeys(o.peaks.kind for o in residuals)
        },
    }
    relative = np.array([one.relative for one in residuals])
    return {
        "n": len(residuals),
        "in_the_band": round(float(np.mean(inside)), 4),
        "above_its_high_end": round(float(np.mean(above)), 4),
        **{name: _errors(relative, np.array(which), np.array(inside)) for name, which in chosen.items()},
    }


def _errors(relative: Array, which: NDArray[np.bool_], inside: NDArray[np.bool_]) -> dict[str, float]:
    absolute = np.abs(relative[which])
    return {
        "n": int(which.sum()),
        "median": round(float(np.median(absolute)), 4),
        "p90": round(float(np.quantile(absolute, 0.9)), 4),
        "bias": round(float(np.median(relative[which])), 4),
        "in_the_band": round(float(np.mean(inside[which])), 4),
    }


def fit_context(cache: Path) -> ContextConstants:
    """The shipped constants of the context, from all rows."""
    fitted = fit(half_peaks(cache))
    cards = {gpu: find_card(gpu) for gpu in fitted.contexts}
    known = CONSTANTS.hidden.context
    more = fitted.contexts["H200"] - fitted.contexts["H100"]
    share = more / (cards["H200"].memory_bytes - cards["H100"].memory_bytes)
    base = dict(known.base_bytes)
    for gpu, architecture in (("L40S", "ada"), ("H100", "hopper")):
        card = cards[gpu]
        base[architecture] = round(
            fitted.contexts[gpu] - known.thread_bytes * card.resident_threads - share * card.memory_bytes
        )
    base["turing"] = base["ada"]  # gives the 0.15 to 0.20 GiB that are reported of a T4
    return known.model_copy(update={"base_bytes": base, "memory_share": round(share, 6)})


def contexts(cache: Path) -> dict[str, float]:
    """MiB of the context of each measured card, as fitted and as shipped."""
    fitted = fit(half_peaks(cache))
    return {gpu: round(value / 2**20, 1) for gpu, value in fitted.contexts.items()} | {
        f"{gpu} shipped": round(context_bytes(find_card(gpu)) / 2**20, 1) for gpu in fitted.contexts
    }

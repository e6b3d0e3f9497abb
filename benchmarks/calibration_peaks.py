"""What the allocator's replay says of every calibration row, kept on disk.

Remove the folder's *.peaks.json after a change of the allocator, of the workspaces or of the parts that are replayed.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from calibration_rows import DeviceRow, LadderRow, device_rows, job_of, ladder_rows
from calibration_traces import load

from vramfit.cards import find_card
from vramfit.files import write_atomically
from vramfit.prediction.constants import CONSTANTS, MemoryKind
from vramfit.prediction.overheads import context_bytes, convolution_workspaces, kept_workspaces, memory_kind
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.prediction.replay_trace import Peaks, replay_trace
from vramfit.prediction.trace_records import OperationRecord, Trace
from vramfit.prediction.transforms.rescale import TraceCurve
from vramfit.records import Verdict
from vramfit.units import GIB, MemoryLimits

# The ladder's rows are of CUDA 11.3, which loaded every kernel at once.
OLD_CUDA = (11, 3)
_A100_LIMIT = round((39.39 - 1.7) * GIB)


@dataclass(frozen=True)
class DevicePeaks:
    """Reserved bytes at every part of workspace that a prediction replays, beside what was measured."""

    row: DeviceRow
    kind: MemoryKind
    reserved_bytes: tuple[int, ...]


def device_peaks(cache: Path) -> list[DevicePeaks]:
    found = []
    for key, rows in _by_key(device_rows()).items():
        kept = _kept(cache, key)
        if kept is None and isinstance(trace := load(cache, key), TraceCurve):
            reserved = {str(row.batch): _reserved(trace.at(row.batch)) for row in rows}
            kept = _keep(cache, key, {"kind": memory_kind(trace.at(2).operations), **reserved})
        found += [DevicePeaks(row, kept["kind"], tuple(kept[str(row.batch)])) for row in rows if kept]
    return found


@dataclass(frozen=True)
class LadderVerdicts:
    """What a prediction says of the size that ran, and of the next: the verdict, and whether it can run at all."""

    row: LadderRow
    ran: tuple[Verdict, bool]
    above: tuple[Verdict, bool] | None


def ladder_verdicts(cache: Path) -> list[LadderVerdicts]:
    """By the constants that are shipped: a file is kept for each of their values."""
    stamp = zlib.crc32(CONSTANTS.model_dump_json().encode())
    found = []
    for row in ladder_rows():
        name = f"{row.key}-{row.channels_last}-{stamp:08x}"
        kept = _kept(cache, name)
        if kept is None and isinstance(trace := load(cache, row.key), TraceCurve):
            predictor = _Traced(row, trace)
            sizes = [size for size in (row.fits, row.above) if size]
            kept = _keep(cache, name, {str(size): predictor.says(size) for size in sizes})
        if kept:
            said = {int(size): (Verdict(verdict), runs) for size, (verdict, runs) in kept.items()}
            found.append(LadderVerdicts(row, said[row.fits], said[row.above] if row.above else None))
    return found


class _Traced(Predictor):
    """Predicts a row's job from its kept trace, in the row's memory order."""

    def __init__(self, row: LadderRow, line: TraceCurve) -> None:
        card = find_card("rtx3090")
        limits = MemoryLimits(reserve_bytes=context_bytes(card, OLD_CUDA) - context_bytes(card))
        super().__init__(job_of(row.key), card, card_budget(card, limits))
        self._line = line
        self._channels_last = row.channels_last

    def says(self, micro_batch: int) -> tuple[Verdict, bool]:
        """The verdict on a micro-batch, and whether it can run at all."""
        trace = self.trace(micro_batch)
        return self.trial_of(trace).verdict, self._runs_pressed(trace)

    def trace(self, micro_batch: int) -> Trace:
        """The kept trace at a micro-batch."""
        trace = self._line.at(micro_batch)
        return replace(trace, operations=[self._ordered(operation) for operation in trace.operations])

    def _rehearsed(self, trace: Trace) -> Trace:
        return trace  # the benchmark accumulates nothing

    def _ordered(self, operation: OperationRecord) -> OperationRecord:
        if operation.convolution is None:
            return operation
        return replace(operation, convolution=replace(operation.convolution, channels_last=self._channels_last))


def _by_key(rows: Iterable[DeviceRow | LadderRow]) -> dict[str, list]:  # type: ignore[type-arg]  # one kind a call
    found: dict[str, list] = {}  # type: ignore[type-arg]  # one kind a call
    for row in rows:
        found.setdefault(row.key, []).append(row)
    return found


def _reserved(trace: Trace) -> list[int]:
    kept = kept_workspaces(trace, find_card("A100 40GB"))
    return [_peaks(trace, part, kept).reserved_bytes for part in CONSTANTS.hidden.replayed_parts]


def _peaks(trace: Trace, part: float, kept: dict[int, int]) -> Peaks:
    workspaces = convolution_workspaces(trace.operations, benchmark=False, part=part)
    return replay_trace(trace, workspaces, kept_bytes=kept, limit_bytes=_A100_LIMIT)


def _kept(cache: Path, key: str) -> dict | None:  # type: ignore[type-arg]  # JSON
    path = cache / f"{key}.peaks.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _keep(cache: Path, key: str, value: dict) -> dict:  # type: ignore[type-arg]  # JSON
    write_atomically(cache / f"{key}.peaks.json", json.dumps(value).encode())
    return value

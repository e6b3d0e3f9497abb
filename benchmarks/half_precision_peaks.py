"""What a replay says of every half-precision row, kept on disk; traces are made on the way, in minutes.

Needs torchvision, and transformers as it was when the rows were measured: `pip install transformers==4.50.3` (later
versions of T5 hold other tensors). Remove the folder's half-*.json after a change of the allocator or the workspaces.
"""

import json
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path

from calibration_rows import UNCAST_IN_1_12
from half_precision_rows import HalfRow, half_job, half_rows

from vramfit.cards import Card, find_card
from vramfit.files import write_atomically
from vramfit.prediction.constants import CONSTANTS, MemoryKind
from vramfit.prediction.overheads import convolution_workspaces, kept_workspaces, memory_kind
from vramfit.prediction.replay_trace import replay_trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.rescale import TraceCurve


@dataclass(frozen=True)
class HalfPeaks:
    """A row and what replays of its steps reserve, at every part of workspace that a prediction replays."""

    row: HalfRow
    kind: MemoryKind
    reserved_bytes: tuple[int, ...]


def half_peaks(cache: Path) -> list[HalfPeaks]:
    """Every fair row; traced and replayed where the cache does not have it."""
    return [_peaks(cache, row) for row in half_rows() if row.fair]


def _peaks(cache: Path, row: HalfRow) -> HalfPeaks:
    card = find_card(row.gpu)
    path = cache / f"{_name(row, card)}-{row.batch}-{card.name.replace(' ', '')}.json"
    if not path.exists():
        trace = _curve(cache, row, card).at(row.batch)
        kept = kept_workspaces(trace, card)
        reserved = [
            replay_trace(
                trace,
                convolution_workspaces(trace.operations, benchmark=False, part=part, card=card),
                kept_bytes=kept,
            ).reserved_bytes
            for part in CONSTANTS.hidden.replayed_parts
        ]
        document = {"kind": memory_kind(trace.operations), "reserved": reserved}
        write_atomically(path, json.dumps(document).encode())
    found = json.loads(path.read_text("utf-8"))
    return HalfPeaks(row, found["kind"], tuple(found["reserved"]))


def _curve(cache: Path, row: HalfRow, card: Card) -> TraceCurve:
    path = cache / f"{_name(row, card)}.trace"
    if not path.exists():
        job = half_job(row)
        uncast = UNCAST_IN_1_12 if row.reserved else ()  # AutoBatch's tables are of torch 1.9 to 2.0
        small, large = (
            trace_step(job, batch, validation=False, capability=card.compute_capability, uncast=uncast)
            for batch in (2, 3)
        )
        curve = TraceCurve.through(small, large)
        if curve is None:
            raise SystemExit(f"{row.model}: events differ between batches.")
        write_atomically(path, zlib.compress(pickle.dumps(curve), 1))
    loaded: TraceCurve = pickle.loads(zlib.decompress(path.read_bytes()))  # our own file
    return loaded


def _name(row: HalfRow, card: Card) -> str:
    return f"{row.key}-{''.join(map(str, card.compute_capability))}"

"""Replays a trace through the caching allocator: what torch would allocate and reserve. Bytes."""

from dataclasses import dataclass

from vramfit.prediction.record import Trace
from vramfit.units import MIB

_STEP = 512


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peak bytes that torch would report."""

    allocated_bytes: int
    reserved_bytes: int


def replay_trace(trace: Trace, *, workspace_bytes: int = 0) -> Peaks:
    """The peaks of a trace, with a workspace that is kept from the first step on."""
    held = peak = workspace_bytes
    for event in trace.events:
        size = trace.storages[event if event >= 0 else ~event].size_bytes
        rounded = -(-size // _STEP) * _STEP
        held += rounded if event >= 0 else -rounded
        peak = max(peak, held)
    return Peaks(peak, round(peak * 1.04) + 20 * MIB)

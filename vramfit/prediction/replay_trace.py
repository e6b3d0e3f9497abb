"""Replays a trace through the caching allocator: what torch would allocate and reserve. Bytes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vramfit.prediction.allocator.allocator import AllocatorOom, CachingAllocator, Settings
from vramfit.prediction.trace_records import Trace


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peak bytes that torch would report, and whether the limit, if there was one, was enough."""

    allocated_bytes: int
    reserved_bytes: int
    retries: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean peaks of several replays, and the difference of the largest and the smallest reserved one. Bytes."""

    allocated_bytes: int
    reserved_bytes: int
    spread_bytes: int

    @classmethod
    def of(cls, replays: Sequence[Peaks]) -> "Spread":
        """The mean and the spread of replays."""
        reserved = [peaks.reserved_bytes for peaks in replays]
        allocated = sum(peaks.allocated_bytes for peaks in replays) // len(replays)
        return cls(allocated, sum(reserved) // len(replays), max(reserved) - min(reserved))


def replay_trace(
    trace: Trace,
    workspaces: Mapping[int, int] | None = None,
    *,
    kept_bytes: Mapping[int, int] | None = None,
    limit_bytes: int | None = None,
    settings: Settings | None = None,
) -> Peaks:
    """The peaks of a trace.

    Args:
        trace: what the step allocates and frees.
        workspaces: event number -> bytes that a kernel needs there for as long as it runs.
        kept_bytes: event number -> bytes that a library takes there and keeps.
        limit_bytes: the most that may be reserved; None for no limit.
        settings: the allocator's; None for torch's own.

    """
    allocator = CachingAllocator(settings, limit_bytes)
    sizes = [storage.size_bytes for storage in trace.storages]
    streams = [storage.stream for storage in trace.storages]
    streams = streams if any(streams) else []
    fits = True
    try:
        for start, stop in _runs(len(trace.events), workspaces or {}, kept_bytes or {}):
            _serve(allocator, start, (workspaces or {}).get(start, 0), (kept_bytes or {}).get(start, 0))
            allocator.replay(trace.events[start:stop], sizes, streams)
    except AllocatorOom:
        fits = False
    return Peaks(allocator.peak_allocated_bytes, allocator.peak_reserved_bytes, allocator.retries, fits)


def _runs(events: int, *taken: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Stretches of events between the places where libraries take memory."""
    places = sorted({0, events}.union(*taken))
    return pairwise(places)


def _serve(allocator: CachingAllocator, place: int, workspace_bytes: int, kept_bytes: int) -> None:
    if kept_bytes:
        allocator.malloc(("kept", place), kept_bytes)
    if workspace_bytes:
        allocator.malloc("workspace", workspace_bytes)
        allocator.free("workspace")

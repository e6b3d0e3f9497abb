"""Goes back over the recorded events of a snapshot, from the segments after them to those before. Sizes in bytes.

A block may be larger than its request: what is left of a free block is split off only if it is large enough. Of a block
that was freed during the recording only the request is recorded. Its end is where its neighbour lay, if the two were
live at the same time: no block of the large pool is smaller than what is split off; a shorter gap is the block's own.

Known limitation: a block that only free memory followed until it was freed is taken to end with its request.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vramfit.prediction.allocator.settings import UNLIMITED, Settings
from vramfit.units import MIB

SEGMENT_ACTIONS = ("segment_alloc", "segment_free", "segment_map", "segment_unmap")
_SMALL_SEGMENT = 2 * MIB


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a device's trace: what happened, where, how many bytes, on which stream."""

    action: str
    address: int
    size: int
    stream: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment, or a mapped stretch of an expandable one, at one moment.

    `live` is its live requests, each as (offset, requested bytes, block bytes); None for the size of a block that is
    not known to be more than the request rounded up.
    """

    address: int
    size: int
    small: bool
    stream: int
    expandable: bool
    live: tuple[tuple[int, int, int | None], ...]

    @property
    def end(self) -> int:
        """The address after its last byte."""
        return self.address + self.size


def initial_state(after: Sequence[Segment], events: Sequence[Event], settings: Settings) -> tuple[Segment, ...]:
    """The segments before the events, of an allocator with these settings."""
    past = _Past(after, settings)
    for event in reversed(events):
        past.undo(event)
    return past.segments()


class _Past:
    """The segments and live requests as they were before each event undone so far."""

    def __init__(self, after: Sequence[Segment], settings: Settings) -> None:
        self._settings = settings
        self._segments = {segment.address: segment for segment in after}
        self._live: dict[int, tuple[int, int | None]] = {
            segment.address + offset: (requested, size) for segment in after for offset, requested, size in segment.live
        }
        self._addresses = sorted(self._live)
        self._starts: list[int] = []  # of the segments, sorted; empty if not up to date
        self._steps: dict[str, Callable[[Event], None]] = {
            "alloc": self._undo_alloc,
            "free_completed": self._undo_free,
            "segment_alloc": self._undo_segment_alloc,
            "segment_free": self._undo_segment_free,
            "segment_map": self._undo_map,
            "segment_unmap": self._undo_unmap,
        }

    def undo(self, event: Event) -> None:
        step = self._steps.get(event.action)
        if step is not None:
            if event.action in SEGMENT_ACTIONS:
                self._starts = []
            step(event)

    def segments(self) -> tuple[Segment, ...]:
        """All segments by address, with their live requests."""
        segments = [self._segments[address] for address in sorted(self._segments)]
        found: list[list[tuple[int, int, int | None]]] = [[] for _ in segments]
        place = 0
        for address in sorted(self._live):
            while address >= segments[place].end:
                place += 1
            found[place].append((address - segments[place].address, *self._live[address]))
        return tuple(replace(segment, live=tuple(live)) for segment, live in zip(segments, found, strict=True))

    def _undo_alloc(self, event: Event) -> None:
        if self._live.pop(event.address, None) is not None:
            del self._addresses[bisect_right(self._addresses, event.address) - 1]

    def _undo_free(self, event: Event) -> None:
        if event.address not in self._live:
            insort(self._addresses, event.address)
        self._live[event.address] = (event.size, None)
        place = bisect_right(self._addresses, event.address) - 1
        for index in (place - 1, place):
            if index >= 0:
                self._measure(index)

    def _measure(self, index: int) -> None:
        """Note the size of a live block whose neighbour shows that it is more than its request rounded up."""
        address = self._addresses[index]
        requested, known = self._live[address]
        segment = self._segment_at(address)
        if known is not None or segment is None or segment.small:
            return
        end = self._addresses[index + 1] if index + 1 < len(self._addresses) else segment.end
        room = min(end, segment.end) - address
        if room - self._settings.round_size(requested) in range(1, self._largest_unsplit_rest(requested) + 1):
            self._live[address] = (requested, room)

    def _largest_unsplit_rest(self, requested: int) -> int:
        if self._settings.expandable_segments:
            return 0
        split = self._settings.round_size(requested) < self._settings.max_split_size_bytes
        return MIB if split else UNLIMITED

    def _segment_at(self, address: int) -> Segment | None:
        self._starts = self._starts or sorted(self._segments)
        place = bisect_right(self._starts, address) - 1
        return self._segments[self._starts[place]] if place >= 0 else None

    def _undo_segment_alloc(self, event: Event) -> None:
        self._segments.pop(event.address, None)

    def _undo_segment_free(self, event: Event) -> None:
        small = event.size == _SMALL_SEGMENT
        self._segments[event.address] = Segment(event.address, event.size, small, event.stream, False, ())

    def _undo_map(self, event: Event) -> None:
        """Take a range out of the stretch that holds it; what was before and after it stays."""
        end = event.address + event.size
        holding = [s for s in self._segments.values() if s.address <= event.address and end <= s.end]
        if not holding:
            raise ValueError("its segments do not hold what was mapped")
        stretch = holding[0]
        del self._segments[stretch.address]
        for start, stop in ((stretch.address, event.address), (end, stretch.end)):
            if start < stop:
                self._segments[start] = replace(stretch, address=start, size=stop - start)

    def _undo_unmap(self, event: Event) -> None:
        """Put a range back, joined to the stretches that touch it."""
        start, end = event.address, event.address + event.size
        small = event.size % self._settings.large_segment_bytes != 0
        for stretch in list(self._segments.values()):
            if stretch.expandable and (stretch.end == start or stretch.address == end):
                del self._segments[stretch.address]
                start, end, small = min(start, stretch.address), max(end, stretch.end), stretch.small
        self._segments[start] = Segment(start, end - start, small, event.stream, True, ())

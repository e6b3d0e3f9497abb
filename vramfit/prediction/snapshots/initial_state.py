"""Goes back over the recorded events of a snapshot, from the segments after them to those before. Sizes in bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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

    `live` is its live requests, each as (offset, requested bytes, block bytes if they are known).
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


def initial_state(after: Sequence[Segment], events: Sequence[Event], large_page: int) -> tuple[Segment, ...]:
    """The segments before the events; `large_page` is what expandable segments of the large pool map at once."""
    past = _Past(after, large_page)
    for event in reversed(events):
        past.undo(event)
    return past.segments()


class _Past:
    """The segments and live requests as they were before each event undone so far."""

    def __init__(self, after: Sequence[Segment], large_page: int) -> None:
        self._large_page = large_page
        self._segments = {segment.address: segment for segment in after}
        self._live: dict[int, tuple[int, int | None]] = {
            segment.address + offset: (requested, size) for segment in after for offset, requested, size in segment.live
        }
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
        self._live.pop(event.address, None)

    def _undo_free(self, event: Event) -> None:
        self._live[event.address] = (event.size, None)

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
        small = event.size % self._large_page != 0
        for stretch in list(self._segments.values()):
            if stretch.expandable and (stretch.end == start or stretch.address == end):
                del self._segments[stretch.address]
                start, end, small = min(start, stretch.address), max(end, stretch.end), stretch.small
        self._segments[start] = Segment(start, end - start, small, event.stream, True, ())

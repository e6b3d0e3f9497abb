"""Sets a recorded snapshot against a replay of it: the recording's own peaks, the replay's, and another setting's.

The recording's figures follow from its addresses: each request lies where it was put, so the block it took is known.
The replay is told sizes and order alone, and must find the same. Sizes in bytes.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from vramfit.errors import DataError
from vramfit.prediction.allocator.allocator import AllocatorOom, CachingAllocator
from vramfit.prediction.allocator.block import UNMAPPED, Block, Pool
from vramfit.prediction.allocator.expandable import ExpandableSegments
from vramfit.prediction.allocator.settings import Settings
from vramfit.prediction.snapshots.initial_state import Event, Segment
from vramfit.prediction.snapshots.snapshot import Snapshot
from vramfit.units import MIB

_SMALL_SEGMENT = 2 * MIB


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run over a recording took.

    `segment_sizes` are those at the end, sorted. `out_of_memory_at` is the number of the recorded request (from 1) that
    the limit refused, 0 for one older than the recording, None if all were served; peaks are those until then.
    """

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    segment_sizes: tuple[int, ...]
    retries: int = 0
    out_of_memory_at: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A snapshot's recorded outcome, its replay, and the same requests under what was asked, None if nothing was."""

    snapshot: Snapshot
    recorded: Outcome
    replayed: Outcome
    alloc_conf: str | None = None
    limit_bytes: int | None = None
    what_if: Outcome | None = None

    @property
    def segments_match(self) -> bool:
        """Whether the replay ended with segments of the recorded number and sizes."""
        return self.recorded.segment_sizes == self.replayed.segment_sizes


def compare(snapshot: Snapshot, alloc_conf: str | None = None, limit_bytes: int | None = None) -> Comparison:
    """Replay a snapshot as it was recorded and, if either is given, under other settings or a limit of reserved bytes.

    Raises:
        UsageError: `alloc_conf` is not an allocator setting that can be replayed.
        DataError: the recording has a gap.

    """
    settings = Settings.parse(alloc_conf) if alloc_conf is not None else None
    asked = settings is not None or limit_bytes is not None
    other = what_if(snapshot, settings, limit_bytes) if asked else None
    return Comparison(snapshot, recorded(snapshot), replayed(snapshot), alloc_conf, limit_bytes, other)


def recorded(snapshot: Snapshot) -> Outcome:
    """What the recorded process took, from the addresses in its snapshot.

    Raises:
        DataError: a request lies where no free memory was: the recording has a gap.

    """
    allocator = RecordedAllocator.before(snapshot)
    for event in snapshot.events:
        allocator.follow(event)
    sizes = tuple(sorted(segment.size for segment in snapshot.after))
    return Outcome(allocator.peak_allocated_bytes, allocator.peak_reserved_bytes, sizes)


def replayed(snapshot: Snapshot, limit_bytes: int | None = None) -> Outcome:
    """The same requests through the replay with the recorded settings, started from the segments older than them."""
    allocator = CachingAllocator(snapshot.settings, limit_bytes)
    _adopt(allocator, snapshot)
    return _run(allocator, snapshot.events)


def what_if(snapshot: Snapshot, settings: Settings | None, limit_bytes: int | None = None) -> Outcome:
    """The same requests under other settings or a limit of reserved bytes.

    Other settings would have laid out the older requests otherwise, so these are made anew first, in the order of
    their addresses.
    """
    if settings is None or settings == snapshot.settings:
        return replayed(snapshot, limit_bytes)
    allocator = CachingAllocator(settings, limit_bytes)
    try:
        for segment in sorted(snapshot.before, key=lambda segment: segment.address):
            for offset, requested, _ in segment.live:
                allocator.malloc(segment.address + offset, requested, segment.stream)
    except AllocatorOom:
        return _outcome(allocator, out_of_memory_at=0)
    return _run(allocator, snapshot.events)


def _run(allocator: CachingAllocator, events: Iterable[Event]) -> Outcome:
    if allocator.limit_bytes is not None and allocator.reserved_bytes > allocator.limit_bytes:
        return _outcome(allocator, out_of_memory_at=0)
    player = _Player(allocator)
    try:
        for event in events:
            player.play(event)
    except AllocatorOom:
        return _outcome(allocator, out_of_memory_at=player.requests)
    return _outcome(allocator)


def _outcome(allocator: CachingAllocator, out_of_memory_at: int | None = None) -> Outcome:
    return Outcome(
        allocator.peak_allocated_bytes,
        allocator.peak_reserved_bytes,
        tuple(sorted(allocator.segment_sizes())),
        allocator.retries,
        out_of_memory_at,
    )


class _Player:
    """Gives a recording's requests to an allocator, by address; its segments are the allocator's own affair.

    A row of segments released in the recording is one call of `empty_cache`, or a retry that did the same.
    """

    def __init__(self, allocator: CachingAllocator) -> None:
        self.allocator = allocator
        self.requests = 0
        self._pending: dict[int, Callable[[], None]] = {}
        self._releasing = False

    def play(self, event: Event) -> None:
        releasing = event.action in ("segment_free", "segment_unmap")
        if releasing and not self._releasing:
            self.allocator.empty_cache()
        self._releasing = releasing
        if event.action == "alloc":
            self.requests += 1
            self.allocator.malloc(event.address, event.size, event.stream)
        elif event.action == "free_requested":
            self._pending[event.address] = self.allocator.free_later(event.address)
        elif event.action == "free_completed":
            free = self._pending.pop(event.address, None)
            if free is None:
                self.allocator.free(event.address)
            else:
                free()


class RecordedAllocator(CachingAllocator):
    """Puts every request where the recording has it, in the segments and pages that the recording has."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._address = 0
        self._player = _Player(self)

    @classmethod
    def before(cls, snapshot: Snapshot) -> "RecordedAllocator":
        """The allocator as it was before the first event of a snapshot."""
        allocator = cls(snapshot.settings)
        _adopt(allocator, snapshot)
        return allocator

    def follow(self, event: Event) -> None:
        """Take one event as it was recorded."""
        self._address = event.address
        if event.action == "segment_alloc":
            small = event.size == _SMALL_SEGMENT
            self.adopt(event.address, [(event.size, None)], small=small, stream=event.stream)
        elif event.action == "segment_free":
            self._release_segment(self._block_here(self._free_blocks()))
        elif event.action == "segment_map":
            self._map(event)
        elif event.action == "segment_unmap":
            self._paged().unmap(self._block_here(self._free_blocks()))
        else:
            self._player.play(event)

    def _find(self, pool: Pool, size: int) -> Block:
        block = self._block_here(entry[2] for entry in pool.free)
        if block.size < size or block.address != self._address:
            raise DataError("the snapshot's addresses contradict each other; record one without a gap.")
        pool.remove(block)
        return block

    def _map(self, event: Event) -> None:
        pools = [self._pool(event.stream, small) for small in (True, False)]
        small = event.size % self.settings.large_segment_bytes != 0
        known = (pool for pool in pools if any(entry[0] == event.address for entry in pool.unmapped))
        self._paged().map_at(next(known, self._pool(event.stream, small)), event.address, event.size)

    def _paged(self) -> ExpandableSegments:
        if self._expandable is None:
            raise DataError("the snapshot maps pages without expandable_segments; record it with one setting.")
        return self._expandable

    def _free_blocks(self) -> Iterable[Block]:
        return (entry[2] for pool in self._pools.values() for entry in pool.free)

    def _block_here(self, blocks: Iterable[Block]) -> Block:
        for block in blocks:
            if block.address <= self._address < block.address + block.size:
                return block
        raise DataError("the snapshot has a request where no free memory was; record one without a gap.")


def _adopt(allocator: CachingAllocator, snapshot: Snapshot) -> None:
    for segment in snapshot.before:
        if not segment.expandable:
            blocks = _blocks(segment, snapshot.settings)
            allocator.adopt(segment.address, blocks, small=segment.small, stream=segment.stream)
    stretches = [segment for segment in snapshot.before if segment.expandable]
    for key in sorted({(stretch.stream, stretch.small) for stretch in stretches}):
        _adopt_stretches(allocator, snapshot, [s for s in stretches if (s.stream, s.small) == key])


def _adopt_stretches(allocator: CachingAllocator, snapshot: Snapshot, stretches: list[Segment]) -> None:
    """One expandable segment from its mapped stretches, in order of address; it begins with the first."""
    blocks: list[tuple[int, Hashable | None]] = []
    end = stretches[0].address
    for stretch in stretches:
        if stretch.address > end:
            blocks.append((stretch.address - end, UNMAPPED))
        blocks.extend(_blocks(stretch, snapshot.settings))
        end = stretch.end
    first = stretches[0]
    allocator.adopt(first.address, blocks, small=first.small, stream=first.stream, expandable=True)


def _blocks(segment: Segment, settings: Settings) -> list[tuple[int, int | None]]:
    """A segment's blocks from its beginning to its end; the address is the key of a live one."""
    blocks: list[tuple[int, int | None]] = []
    end = 0
    for offset, requested, known in segment.live:
        if offset > end:
            blocks.append((offset - end, None))
        size = known or settings.round_size(requested)
        blocks.append((size, segment.address + offset))
        end = offset + size
    if end < segment.size:
        blocks.append((segment.size - end, None))
    return blocks

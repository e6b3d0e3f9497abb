"""The drawings of a recording as figures: what was held from moment to moment by kind, and how segments are filled."""

from collections.abc import Sequence

from vramfit.postmortem.kinds import KINDS, MemoryKind, kind_of
from vramfit.postmortem.recording import Held, Recording
from vramfit.records import Bytes, Record

_MOST_COLUMNS = 480


class Instant(Record):
    """After so many events: bytes held of each kind, in the order of `KINDS`."""

    position: int
    sizes_bytes: tuple[Bytes, ...]


class SegmentPicture(Record):
    """One segment; its pieces in order as (bytes, kind), with "" for what is free."""

    size_bytes: Bytes
    small: bool
    pieces: tuple[tuple[Bytes, str], ...]


class Picture(Record):
    """Both drawings; there is no course without recorded events."""

    instants: tuple[Instant, ...]
    segments: tuple[SegmentPicture, ...]


def draw(recording: Recording, kinds: Sequence[MemoryKind]) -> Picture:
    """The figures of one device; `kinds` is of each block held at the moment."""
    of = {block.address: kind for block, kind in zip(recording.moment.held, kinds, strict=True)}
    segments = [_segment(recording, number, of) for number in range(len(recording.moment.stretches))]
    largest = sorted(segments, key=lambda one: -one.size_bytes)
    return Picture(instants=_instants(recording, of), segments=tuple(largest))


def _segment(recording: Recording, number: int, of: dict[int, MemoryKind]) -> SegmentPicture:
    stretch = recording.moment.stretches[number]
    pieces: list[tuple[int, str]] = []
    address = stretch.address
    for size, used in stretch.blocks:
        kind = str(of.get(address, "unknown")) if used else ""
        if pieces and pieces[-1][1] == kind:
            pieces[-1] = (pieces[-1][0] + size, kind)
        else:
            pieces.append((size, kind))
        address += size
    return SegmentPicture(size_bytes=stretch.size_bytes, small=stretch.small, pieces=tuple(pieces))


def _instants(recording: Recording, of: dict[int, MemoryKind]) -> tuple[Instant, ...]:
    """The fullest moment of each stretch of events, up to the end of the recording."""
    events = recording.snapshot.events
    if not events:
        return ()
    places = {kind: place for place, kind in enumerate(KINDS)}
    held, live = [0] * len(KINDS), {}
    at_moment = {block.address: block.born for block in recording.moment.held}
    for segment in recording.snapshot.before:
        for offset, requested, _ in segment.live:
            address = segment.address + offset
            kind = of.get(address, "unknown") if at_moment.get(address) == -1 else "unknown"
            live[address] = (places[kind], requested)
            held[places[kind]] += requested
    width = -(-len(events) // _MOST_COLUMNS)
    found: dict[int, Instant] = {}
    for number, event in enumerate(events):
        origin = recording.origins[number]
        if origin is not None:
            block = Held(event.address, event.size, event.size, number, origin)
            live[event.address] = (places[kind_of(block)], event.size)
            held[places[kind_of(block)]] += event.size
        elif event.action == "free_requested" and event.address in live:
            place, size = live.pop(event.address)
            held[place] -= size
        column = number // width
        if column not in found or sum(held) > sum(found[column].sizes_bytes):
            found[column] = Instant(position=number + 1, sizes_bytes=tuple(held))
    return tuple(found[column] for column in sorted(found))

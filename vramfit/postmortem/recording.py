"""One device of a snapshot at the moment that matters: the last refused request, else the peak, else its end.

What was held then is every block in use, with the stack that made it. Blocks, rounding and free memory sum to what was
reserved, to the byte. Sizes in bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vramfit.errors import DataError
from vramfit.postmortem.stacks import NOWHERE, Origin, origin_of
from vramfit.prediction.allocator.block import Block
from vramfit.prediction.snapshots.compare import RecordedAllocator
from vramfit.prediction.snapshots.snapshot import KNOWN_ACTIONS, Snapshot, parse_device, trace_of

Reason = Literal["oom", "peak", "end"]


@dataclass(frozen=True, slots=True)
class Held:
    """A block in use: `born` is the number of the event that made it, -1 for one older than the recording."""

    address: int
    size_bytes: int
    requested_bytes: int
    born: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Stretch:
    """A segment, or a mapped stretch of an expandable one: its blocks in order as (bytes, whether in use)."""

    address: int
    size_bytes: int
    small: bool
    stream: int
    blocks: tuple[tuple[int, bool], ...]

    @property
    def is_free(self) -> bool:
        """Whether nothing in it is in use."""
        return not any(used for _, used in self.blocks)


@dataclass(frozen=True, slots=True)
class Moment:
    """What was on the card after `position` events.

    `request_bytes` is what was refused, and `device_free_bytes` what the card had free then; None where nothing was.
    """

    reason: Reason
    position: int
    held: tuple[Held, ...]
    stretches: tuple[Stretch, ...]
    reserved_bytes: int
    request_bytes: int | None = None
    device_free_bytes: int | None = None

    @property
    def allocated_bytes(self) -> int:
        """What blocks in use take."""
        return sum(block.size_bytes for block in self.held)

    def holes(self, *, small: bool) -> list[int]:
        """Free blocks of the pool of small requests or of large ones."""
        return [size for one in self.stretches if one.small is small for size, used in one.blocks if not used]


@dataclass(frozen=True)
class Recording:
    """A device of a snapshot; `origins` has one entry an event, None where the event allocates nothing."""

    snapshot: Snapshot
    entries: tuple[Mapping[str, Any], ...]
    origins: tuple[Origin | None, ...]
    moment: Moment
    notes: tuple[str, ...] = ()


def read_devices(data: Any) -> list[Recording]:
    """Every device of a snapshot's containers that reserved memory or recorded something, the fullest first.

    Errors of wrong containers are Python's own; older snapshots may be a list of segments alone.
    """
    containers = {"segments": data} if isinstance(data, list) else data
    traces = containers.get("device_traces") or []
    named = {int(segment.get("device", 0)) for segment in containers["segments"]}
    devices = named | {number for number, trace in enumerate(traces) if trace}
    recordings = [_read(containers, device) for device in sorted(devices)]
    return sorted(recordings, key=lambda one: (one.moment.reason != "oom", -one.moment.reserved_bytes))


def _read(data: Mapping[str, Any], device: int) -> Recording:
    snapshot = parse_device(data, device)
    entries = tuple(entry for entry in trace_of(data, device) if entry["action"] in KNOWN_ACTIONS)
    recorded = any(entry.get("frames") for entry in entries)
    origins = tuple(
        origin_of(entry.get("frames") or (), recorded=recorded) if entry["action"] == "alloc" else None
        for entry in entries
    )
    old = _origins_of_old(data, device, entries)
    notes: tuple[str, ...] = ()
    try:
        moment = _moment(snapshot, entries, origins, old)
    except DataError as error:
        moment = _at_end(snapshot, _origins_of_old(data, device, ()))
        notes = (f"What was recorded has a gap ({error}); explained is what was there at the end.",)
    return Recording(snapshot, entries, origins, moment, notes)


def _origins_of_old(data: Mapping[str, Any], device: int, entries: Sequence[Mapping[str, Any]]) -> dict[int, Origin]:
    """By address, what is known of blocks that were there before the recording, or all without one."""
    made = {entry["addr"] for entry in entries if entry["action"] == "alloc"}
    found = {}
    for segment in data["segments"]:
        if segment.get("device", 0) != device:
            continue
        at = segment["address"]
        for block in segment["blocks"]:
            history = block.get("history") or [{}]
            frames = block.get("frames") or history[0].get("frames") or ()
            if block["state"] != "inactive" and frames and at not in made:
                found[at] = origin_of(frames)
            at += block["size"]
    return found


def _moment(
    snapshot: Snapshot, entries: Sequence[Mapping[str, Any]], origins: Sequence[Origin | None], old: dict[int, Origin]
) -> Moment:
    if not snapshot.events:
        return _at_end(snapshot, old)
    refused = [number for number, event in enumerate(snapshot.events) if event.action == "oom"]
    position = refused[-1] if refused else _peak(snapshot)
    allocator = RecordedAllocator.before(snapshot)
    born: dict[int, int] = {}
    requested = {one.address + offset: asked for one in snapshot.before for offset, asked, _ in one.live}
    for number, event in enumerate(snapshot.events[:position]):
        allocator.follow(event)
        if event.action == "alloc":
            born[event.address], requested[event.address] = number, event.size
    moment = _seen(allocator, position, lambda address: (born.get(address, -1), requested[address], origins, old))
    if not refused:
        return moment
    entry = entries[position]
    free = entry.get("device_free")
    return replace(
        moment,
        reason="oom",
        request_bytes=int(entry["size"]),
        device_free_bytes=None if free is None else int(free),
    )


def _peak(snapshot: Snapshot) -> int:
    """The number of events after which most was allocated."""
    allocator = RecordedAllocator.before(snapshot)
    most, position = allocator.allocated_bytes, 0
    for number, event in enumerate(snapshot.events, 1):
        allocator.follow(event)
        if allocator.allocated_bytes > most:
            most, position = allocator.allocated_bytes, number
    return position


def _seen(allocator: RecordedAllocator, position: int, known: Any) -> Moment:
    held, starts = [], []
    for block in allocator.blocks():
        if block.begins:
            starts.append(block)
        if block.free:
            continue
        born, requested, origins, old = known(block.address)
        origin = origins[born] if born >= 0 else old.get(block.address, NOWHERE)
        held.append(Held(block.address, block.size, requested, born, origin or NOWHERE))
    stretches = sorted((_stretch(block) for block in starts), key=lambda one: one.address)
    return Moment("peak", position, tuple(held), tuple(stretches), allocator.reserved_bytes)


def _stretch(first: Block) -> Stretch:
    blocks = [(block.size, not block.free) for block in _mapped(first)]
    size = sum(size for size, _ in blocks)
    return Stretch(first.address, size, first.pool.small, first.pool.stream, tuple(blocks))


def _mapped(block: Block | None) -> Iterator[Block]:
    while block is not None and block.mapped:
        yield block
        block = block.next


def _at_end(snapshot: Snapshot, old: dict[int, Origin]) -> Moment:
    held, stretches = [], []
    for segment in snapshot.after:
        blocks, end = [], 0
        for offset, requested, known in segment.live:
            size = known or snapshot.settings.round_size(requested)
            address = segment.address + offset
            held.append(Held(address, size, requested, -1, old.get(address, NOWHERE)))
            blocks += [(offset - end, False)] if offset > end else []
            blocks.append((size, True))
            end = offset + size
        blocks += [(segment.size - end, False)] if end < segment.size else []
        stretches.append(Stretch(segment.address, segment.size, segment.small, segment.stream, tuple(blocks)))
    reserved = sum(segment.size for segment in snapshot.after)
    return Moment("end", len(snapshot.events), tuple(held), tuple(stretches), reserved)

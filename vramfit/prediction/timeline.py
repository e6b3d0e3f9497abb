"""What a traced step holds from moment to moment, by kind. Sizes in bytes, before the allocator rounds them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vramfit.prediction.trace_records import Kind, Trace
from vramfit.records import Bytes, Record

WORKSPACE = "workspace"
# From what stays to what comes and goes, as a drawing stacks them.
_ORDER: tuple[Kind, ...] = (
    "parameter",
    "buffer",
    "average",
    "optimizer state",
    "gradient",
    "cast weight",
    "input",
    "activation",
    "loss",
    "temporary",
)
KINDS: tuple[str, ...] = (*_ORDER, WORKSPACE)
# More columns than this would be narrower than a pixel.
_MOST_COLUMNS = 720


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What no tensor of a trace shows.

    `workspaces` and `kept_bytes`: number of the event before which a library takes bytes, for as long as a kernel runs
    or for good. `context_bytes`: the CUDA context.
    """

    workspaces: Mapping[int, int] = field(default_factory=dict)
    kept_bytes: Mapping[int, int] = field(default_factory=dict)
    context_bytes: int = 0


class Column(Record):
    """One moment: the number of events before it, the phase and operation at work, bytes in the order of `KINDS`."""

    position: int
    phase: str
    operation: str
    module: str
    sizes_bytes: tuple[Bytes, ...]


class Timeline(Record):
    """What is held through one part of a trace; each column is the fullest moment of its stretch of events."""

    part: str
    kinds: tuple[str, ...] = KINDS
    columns: tuple[Column, ...]


def part_at(trace: Trace, position: int) -> str:
    """The part of a trace that holds the moment after `position` events; `setup` is what comes before step 1."""
    starts = {"setup": 0, **trace.marks}
    return max((start, name) for name, start in starts.items() if start < max(position, 1))[1]


def draw_timeline(trace: Trace, hidden: Hidden, part: str) -> Timeline:
    """The timeline of one part of a trace: `step 1`, `step 2`, `validation` or `setup`."""
    start, stop = _bounds(trace, part)
    stretch = -(-(stop - start) // _MOST_COLUMNS) or 1
    fullest: dict[int, tuple[int, ...]] = {}
    columns: dict[int, Column] = {}
    born = 0
    for position, number, held in _moments(trace, hidden):
        born = number if number >= 0 else born
        if not start < position <= stop:
            continue
        place = (position - start - 1) // stretch
        if place not in fullest or sum(held) > sum(fullest[place]):
            fullest[place] = tuple(held)
            storage = trace.storages[born]
            columns[place] = Column(
                position=position,
                phase=storage.phase,
                operation=storage.op,
                module=storage.module,
                sizes_bytes=fullest[place],
            )
    return Timeline(part=part, columns=tuple(columns[place] for place in sorted(columns)))


def _bounds(trace: Trace, part: str) -> tuple[int, int]:
    starts = {"setup": 0, **trace.marks}
    names = sorted(starts, key=starts.__getitem__)
    later = names[names.index(part) + 1 :]
    return starts[part], starts[later[0]] if later else len(trace.events)


def _moments(trace: Trace, hidden: Hidden) -> Iterator[tuple[int, int, list[int]]]:
    """After each event: how many there were, the event itself, bytes held by kind; the list changes as it goes on."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    held = [0] * len(KINDS)
    for position, event in enumerate(trace.events):
        held[-1] += hidden.kept_bytes.get(position, 0)
        workspace = hidden.workspaces.get(position, 0)
        if workspace:
            held[-1] += workspace
            yield position + 1, event, held
            held[-1] -= workspace
        storage = trace.storages[event if event >= 0 else ~event]
        held[places[storage.kind]] += storage.size_bytes if event >= 0 else -storage.size_bytes
        yield position + 1, event, held

"""Where the memory of a predicted peak goes: by kind, by module, in hidden parts and in the allocator. Sizes in bytes.

The peak of the card is the peak of what is reserved, plus the CUDA context. Its parts are what lives at the moment when
most is allocated, what the allocator rounds those up by, and what it holds besides; they sum to the peak to the byte.
Which workspaces cuDNN takes is not known: a prediction is the mean over several parts of the most, and what lives is
shown at the mean part. It is never more than what is reserved in the mean, for a peak is convex in the part.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vramfit.prediction.allocator.allocator import CachingAllocator, Settings
from vramfit.prediction.constants import CONSTANTS
from vramfit.prediction.overheads import context_bytes, kept_workspaces, passing_workspaces
from vramfit.prediction.timeline import WORKSPACE, Hidden, Timeline, draw_timeline, part_at
from vramfit.prediction.trace_predictor import TracePredictor
from vramfit.prediction.trace_records import Trace
from vramfit.records import Bytes, Record

ROUNDING = "rounding"
CACHED = "cached"
CONTEXT = "context"


class Part(Record):
    """One part of the peak: a kind of tensor, a hidden part, or the allocator's own."""

    name: str
    size_bytes: Bytes


class ModulePart(Record):
    """Tensors of one module at the peak, and of the modules right below it, largest first."""

    name: str
    size_bytes: Bytes
    parts: tuple[Part, ...] = ()


class Explanation(Record):
    """The peak of one micro-batch on one card, in parts that sum to it.

    `kinds` are tensors by what they are for; `modules` the same tensors by who made them; `hidden` what libraries and
    the driver take; `allocator` what rounding and caching take.
    """

    micro_batch: int
    peak_bytes: Bytes
    part: str
    phase: str
    operation: str
    module: str
    kinds: tuple[Part, ...]
    modules: tuple[ModulePart, ...]
    hidden: tuple[Part, ...]
    allocator: tuple[Part, ...]
    timeline: Timeline

    @property
    def tensors_bytes(self) -> int:
        """What the tensors alone take at the peak."""
        return sum(part.size_bytes for part in self.kinds)


def explain_trial(predictor: TracePredictor, micro_batch: int) -> Explanation:
    """The parts of what a predictor says of a micro-batch; they sum to its trial's `device_used_bytes`.

    Raises:
        NotTraceable: the step cannot run on storage-less tensors.

    """
    trace = predictor.rehearsal(micro_batch)
    parts = CONSTANTS.hidden.replayed_parts
    workspaces = passing_workspaces(
        trace.operations, predictor.card, benchmark=predictor.cudnn_benchmark, part=sum(parts) / len(parts)
    )
    hidden = Hidden(
        workspaces=workspaces,
        kept_bytes=kept_workspaces(trace, predictor.card),
        context_bytes=context_bytes(predictor.card),
    )
    reserved = predictor.trial(micro_batch).peak_reserved_bytes
    return explain(trace, hidden, predictor.settings, reserved_bytes=reserved)


def explain(
    trace: Trace, hidden: Hidden, settings: Settings | None = None, *, reserved_bytes: int | None = None
) -> Explanation:
    """The parts of a trace's peak on a card that is large enough for it.

    Args:
        trace: what the step allocates and frees.
        hidden: what libraries and the driver take besides.
        settings: the allocator's; None for torch's own.
        reserved_bytes: the peak that is predicted; None for that of one replay.

    """
    peak = _find_peak(trace, hidden, settings or Settings())
    reserved = reserved_bytes or peak.reserved_bytes
    live = _live(trace, peak.position)
    tensors = sum(trace.storages[number].size_bytes for number in live)
    kept = sum(size for position, size in hidden.kept_bytes.items() if position <= peak.position)
    libraries = kept + peak.workspace_bytes
    last = trace.storages[_latest_birth(trace, peak.position)]
    return Explanation(
        micro_batch=trace.micro_batch,
        peak_bytes=reserved + hidden.context_bytes,
        part=part_at(trace, peak.position),
        phase=last.phase,
        operation=last.op,
        module=last.module,
        kinds=_by_kind(trace, live),
        modules=_by_module(trace, live),
        hidden=_parts({WORKSPACE: libraries, CONTEXT: hidden.context_bytes}),
        allocator=_parts(
            {
                ROUNDING: peak.allocated_bytes - tensors - libraries,
                CACHED: reserved - peak.allocated_bytes,
            }
        ),
        timeline=draw_timeline(trace, hidden, part_at(trace, peak.position)),
    )


@dataclass(frozen=True)
class _Peak:
    """When most was allocated: after `position` events, with what a running kernel had for itself."""

    position: int
    workspace_bytes: int
    allocated_bytes: int
    reserved_bytes: int


def _find_peak(trace: Trace, hidden: Hidden, settings: Settings) -> _Peak:
    allocator = CachingAllocator(settings)
    best, moment = -1, (0, 0)
    for position, workspace in _replayed(trace, hidden, allocator):
        if allocator.peak_allocated_bytes > best:
            best, moment = allocator.peak_allocated_bytes, (position, workspace)
    return _Peak(*moment, allocator.peak_allocated_bytes, allocator.peak_reserved_bytes)


def _replayed(trace: Trace, hidden: Hidden, allocator: CachingAllocator) -> Iterator[tuple[int, int]]:
    """Replay a trace; after each thing taken, the number of events so far and the workspace held for it."""
    sizes = [storage.size_bytes for storage in trace.storages]
    for position, event in enumerate(trace.events):
        if position in hidden.kept_bytes:
            allocator.malloc(("kept", position), hidden.kept_bytes[position])
            yield position, 0
        if position in hidden.workspaces:
            allocator.malloc(WORKSPACE, hidden.workspaces[position])
            yield position, hidden.workspaces[position]
            allocator.free(WORKSPACE)
        if event >= 0:
            allocator.malloc(event, sizes[event])
            yield position + 1, 0
        else:
            allocator.free(~event)


def _live(trace: Trace, position: int) -> list[int]:
    live: set[int] = set()
    for event in trace.events[:position]:
        if event >= 0:
            live.add(event)
        else:
            live.discard(~event)
    return sorted(live)


def _latest_birth(trace: Trace, position: int) -> int:
    return next((event for event in reversed(trace.events[:position]) if event >= 0), 0)


def _by_kind(trace: Trace, live: list[int]) -> tuple[Part, ...]:
    sizes: dict[str, int] = defaultdict(int)
    for number in live:
        sizes[trace.storages[number].kind] += trace.storages[number].size_bytes
    return _parts(sizes)


def _by_module(trace: Trace, live: list[int]) -> tuple[ModulePart, ...]:
    """Two levels of the modules' names; what no module made goes by its phase, in brackets."""
    tree: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for number in live:
        storage = trace.storages[number]
        names = storage.module.split(".") if storage.module else [f"({storage.phase})"]
        tree[names[0]][".".join(names[:2])] += storage.size_bytes
    parts = [
        ModulePart(
            name=name,
            size_bytes=sum(below.values()),
            parts=() if set(below) == {name} else _parts(below),
        )
        for name, below in tree.items()
    ]
    return tuple(sorted(parts, key=lambda part: (-part.size_bytes, part.name)))


def _parts(sizes: Mapping[str, int]) -> tuple[Part, ...]:
    parts = [Part(name=name, size_bytes=size) for name, size in sizes.items()]
    return tuple(sorted(parts, key=lambda part: (-part.size_bytes, part.name)))

"""Where the parts of a network lie in a trace, what each keeps for the backward pass, and what recomputing would.

Positions are numbers of events. Sizes in bytes, rounded up as the allocator does.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vramfit.jobs.recompute import is_kept
from vramfit.prediction.trace_records import Call, OperationRecord, Trace

_ROUND_BYTES = 512
NEVER = 1 << 60


@dataclass(frozen=True, slots=True)
class Span:
    """One part of a network in one step: its forward events, where its backward begins and ends, its operations."""

    name: str
    start: int
    stop: int
    back: int
    done: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operations: tuple[OperationRecord, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """Storages of one span under one setting.

    Attributes:
        dropped: kept by the plain step for the backward pass, and made again in place of that.
        cast: half-precision weights among what is made again; autocast holds them until the forward pass ends.
        prolonged: freed early by the plain step, and held until the part is made again.
        again: the operations that run again.
        made_again: every storage that running again makes anew, for good or on the way.
        copied: positions where an activation that works in place does so no more, and on which storages.

    """

    dropped: frozenset[int]
    cast: frozenset[int]
    prolonged: frozenset[int]
    again: tuple[OperationRecord, ...]
    made_again: frozenset[int]
    copied: Mapping[int, tuple[int, ...]]


class StepTrace:
    """One step of a trace, with the life of every storage and the spans of some of its modules."""

    def __init__(self, trace: Trace, step: str, names: Iterable[str]) -> None:
        later = list(trace.marks)[list(trace.marks).index(step) + 1]
        self.trace = trace
        self.start, self.stop = trace.marks[step], trace.marks[later]
        self.operations = list(trace.part(step))
        self.freed_at = {~event: at for at, event in enumerate(trace.events) if event < 0}
        self.forward_end = self._forward_end()
        self.calls = [call for call in trace.calls if self.start <= call.start < self.stop]
        self.used_until = self._last_uses()
        self.spans = self._spans(set(names))

    def size(self, storage: int) -> int:
        """Bytes of a storage as the allocator rounds them."""
        return rounded(self.trace.storages[storage].size_bytes)

    def _forward_end(self) -> int:
        """After the last operation of the forward pass, and after what its end lets go of."""
        forward = [operation.position for operation in self.operations if operation.phase == "forward"]
        end = max(forward, default=self.stop)
        while end < self.stop and self.trace.events[end] < 0:
            end += 1
        return end

    def last_use(self, storage: int, span: Span) -> int:
        """Where a span's forward lets go of a storage that the backward pass does not keep."""
        return min(span.stop, self.used_until.get(storage, span.stop))

    def kept(self, span: Span, *, selective: bool) -> Kept:
        """What recomputing a span drops and what it holds longer."""
        made = [event for event in self.trace.events[span.start : span.stop] if event >= 0]
        held = {storage for storage in made if self.freed_at.get(storage, NEVER) > self.forward_end}
        cast = {storage for storage in held if self.trace.storages[storage].kind == "cast weight"}
        products = {storage for storage in made if selective and is_kept(self.trace.storages[storage].op)}
        needed = {*span.inputs, *products} - held
        prolonged = frozenset(one for one in needed if self.freed_at.get(one, NEVER) < span.done)
        dropped = held - cast - products - set(span.outputs)
        passing = {storage for storage in made if self.freed_at.get(storage, NEVER) < span.stop}
        return Kept(
            dropped=frozenset(dropped),
            cast=frozenset(cast),
            prolonged=prolonged,
            made_again=frozenset((dropped | cast | passing | set(span.outputs)) - prolonged),
            again=tuple(one for one in span.operations if not (selective and is_kept(one.name)) and not _counts(one)),
            copied=self._in_place(span) if selective else {},
        )

    def _in_place(self, span: Span) -> dict[int, tuple[int, ...]]:
        working = {operation.module for operation in span.operations}
        found: dict[int, tuple[int, ...]] = {}
        for call in self.calls:
            same = call.module in working and call.inputs and call.inputs == call.outputs
            if same and span.start <= call.start and call.stop <= span.stop:
                found[call.stop] = (*found.get(call.stop, ()), *call.inputs)
        return found

    def _last_uses(self) -> dict[int, int]:
        """Where the last call ends that made a storage, was given it or returned it."""
        until: dict[int, int] = {}
        for call in self.calls:  # in the order of their ends: the innermost that made a storage comes first
            for event in self.trace.events[call.start : call.stop]:
                if event >= 0:
                    until.setdefault(event, call.stop)
        return until | {storage: call.stop for call in self.calls for storage in (*call.outputs, *call.inputs)}

    def _spans(self, names: set[str]) -> tuple[Span, ...]:
        calls = [call for call in self.calls if call.module in names]
        once = [call for call in calls if sum(other.module == call.module for other in calls) == 1]
        forward, back = self._by_module({call.module for call in once})
        spans = [
            Span(
                call.module, call.start, call.stop, *back[call.module], call.inputs, call.outputs, forward[call.module]
            )
            for call in sorted(once, key=_by_start)
            if call.module in back and call.module in forward
        ]
        return tuple(spans)

    def _by_module(self, names: set[str]) -> tuple[dict[str, tuple[OperationRecord, ...]], dict[str, tuple[int, int]]]:
        forward: dict[str, list[OperationRecord]] = {}
        back: dict[str, tuple[int, int]] = {}
        before = self.start
        for operation in self.operations:
            for name in _holders(operation.module):
                if name in names and operation.phase == "forward":
                    forward.setdefault(name, []).append(operation)
                elif name in names and operation.phase == "backward":
                    back[name] = (back.get(name, (before, 0))[0], operation.position)
            before = operation.position
        return {name: tuple(operations) for name, operations in forward.items()}, back


def _counts(operation: OperationRecord) -> bool:
    """Whether an operation counts batches for BatchNorm, which recomputation leaves out."""
    return operation.name == "add_.Tensor" and operation.dtype == "int64"


def rounded(size_bytes: int) -> int:
    """A size as the caching allocator rounds it."""
    return -(-size_bytes // _ROUND_BYTES) * _ROUND_BYTES


def held_bytes(trace: Trace) -> list[int]:
    """Bytes held after each event, each storage rounded as the allocator rounds it."""
    sizes = [rounded(storage.size_bytes) for storage in trace.storages]
    held, total = [], 0
    for event in trace.events:
        total += sizes[event] if event >= 0 else -sizes[~event]
        held.append(total)
    return held


def _by_start(call: Call) -> tuple[int, int]:
    return call.start, -call.stop


def _holders(module: str) -> Iterator[str]:
    """The names of a module and of all that hold it."""
    while module:
        yield module
        module = module.rpartition(".")[0]

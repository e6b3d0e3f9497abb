"""A trace rewritten as recomputation would make it: no second trace is needed to know what a selection does.

What a recomputed part drops is freed where its forward lets go of it; its forward's events come again where its
backward begins. Allocated peaks of HRNets, ResNets, EfficientNets and ViTs are those of a job traced with recomputation
to within 2 %, and ConvNeXt's up to 8 % too high; reserved peaks hang on the order of requests and may differ more.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vramfit.prediction.trace_records import OperationRecord, StorageRecord, Trace
from vramfit.prediction.transforms.spans import Kept, Span, StepTrace

_STEP = "step "


def recomputing(trace: Trace, selection: Mapping[str, str]) -> Trace:
    """The trace of the same steps with modules recomputed: dotted name to `selective`, `block` or `module`.

    The calls of modules are not in it.
    """
    edit = _Edit(trace, list(trace.storages))
    for mark in trace.marks if selection else ():
        if mark.startswith(_STEP):
            step = StepTrace(trace, mark, selection)
            for span in step.spans:
                edit.recompute(step, span, selective=selection[span.name] == "selective")
    return edit.result()


@dataclass(slots=True)
class _Edit:
    """Events to insert before a position of the trace, and storages whose later frees mean another storage."""

    trace: Trace
    storages: list[StorageRecord]
    inserted: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    operations: dict[int, list[OperationRecord]] = field(default_factory=lambda: defaultdict(list))
    renamed: dict[int, int] = field(default_factory=dict)
    prolonged: dict[int, int] = field(default_factory=dict)

    def recompute(self, step: StepTrace, span: Span, *, selective: bool) -> None:
        """Recompute one span."""
        kept = step.kept(span, selective=selective)
        for position, storages in kept.copied.items():
            self.inserted[position] += self._copies(storages)
        for storage in sorted(kept.dropped):
            self.inserted[step.last_use(storage, span)].append(~storage)
        self.inserted[step.forward_end] += [~storage for storage in sorted(kept.cast)]
        for storage in kept.prolonged:
            self.prolonged[storage] = max(span.done, self.prolonged.get(storage, 0))
        self.inserted[span.back] += self._again(span, kept)
        self.operations[span.back] += [replace(operation, phase="backward") for operation in kept.again]

    def _again(self, span: Span, kept: Kept) -> list[int]:
        """The forward's events over again, with new storages; what only the outside needs goes at once."""
        twins: dict[int, int] = {}
        events: list[int] = []
        for position, event in enumerate(self.trace.events[span.start : span.stop], span.start):
            events += self._copies(kept.copied.get(position, ()))
            if event >= 0 and event in kept.made_again:
                twins[event] = self._twin(event)
                events.append(twins[event])
            elif ~event in twins:
                events.append(~twins.pop(~event))
        remade = kept.dropped | kept.cast
        self.renamed |= {storage: twin for storage, twin in twins.items() if storage in remade}
        return events + [~twin for storage, twin in twins.items() if storage not in remade]

    def _copies(self, storages: tuple[int, ...]) -> list[int]:
        twins = [self._twin(storage) for storage in storages]
        return [event for twin in twins for event in (twin, ~twin)]

    def _twin(self, storage: int) -> int:
        self.storages.append(replace(self.storages[storage], phase="backward"))
        return len(self.storages) - 1

    def result(self) -> Trace:
        """The trace with everything inserted."""
        for storage, position in self.prolonged.items():
            self.inserted[position].append(~storage)
        events: list[int] = []
        moved = []
        for position, event in enumerate(self.trace.events):
            events += self.inserted.get(position, ())
            moved.append(len(events))
            if event >= 0:
                events.append(event)
            elif position >= self.prolonged.get(~event, 0):
                events.append(~self.renamed.get(~event, ~event))
        moved.append(len(events))
        marks = {name: moved[position] for name, position in self.trace.marks.items()}
        return Trace(
            self.trace.micro_batch, self.storages, events, self._operations(moved), marks, [], self.trace.assumptions
        )

    def _operations(self, moved: list[int]) -> list[OperationRecord]:
        waiting = sorted(self.operations.items(), reverse=True)
        operations: list[OperationRecord] = []
        for operation in self.trace.operations:
            while waiting and waiting[-1][0] < operation.position:
                position, again = waiting.pop()
                operations += [_at(one, moved[position]) for one in again]
            operations.append(_at(operation, moved[operation.position]))
        return operations


def _at(operation: OperationRecord, position: int) -> OperationRecord:
    """The operation at another position; thousands are moved, and those of the setup and of step 1 hardly."""
    return operation if operation.position == position else replace(operation, position=position)

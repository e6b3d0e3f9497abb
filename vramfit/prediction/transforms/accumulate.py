"""A trace rewritten as a run that splits its batch makes it: gradients of one micro-batch stay while the next one runs.

A plain step drops its gradients before the next forward pass begins. A step of several micro-batches keeps them, so
its second pass finds a card that is fuller by the gradients. A measured trial runs such a step; with this a prediction
has one too, without tracing it.
"""

from dataclasses import dataclass, field, replace

from vramfit.prediction.trace_records import OperationRecord, StorageRecord, Trace

_STEP = "step "


def accumulating(trace: Trace) -> Trace:
    """The same trace, but that the last step goes forward and backward twice before it updates the weights.

    A trace without an update is returned as it is. The calls of modules are not in the result.
    """
    found = _find_pass(trace)
    if found is None:
        return trace
    events, storages, moved = _repeated(trace, found)
    after = [replace(one, position=one.position + len(events)) for one in trace.operations[found.updates :]]
    again = [replace(one, position=moved[one.position]) for one in found.operations(trace)]
    marks = {name: at + len(events) * (at >= found.stop) for name, at in trace.marks.items()}
    return Trace(
        trace.micro_batch,
        storages,
        [*trace.events[: found.stop], *events, *trace.events[found.stop :]],
        [*trace.operations[: found.updates], *again, *after],
        marks,
        assumptions=trace.assumptions,
    )


@dataclass(frozen=True, slots=True)
class _Pass:
    """Forward and backward of a step: numbers of events before and after it, and of its operations likewise."""

    start: int
    stop: int
    begins: int
    updates: int

    def operations(self, trace: Trace) -> list[OperationRecord]:
        return trace.operations[self.begins : self.updates]


def _find_pass(trace: Trace) -> _Pass | None:
    """The pass of the last step; None where no update follows it."""
    start = trace.marks[[name for name in trace.marks if name.startswith(_STEP)][-1]]
    numbered = [(n, one) for n, one in enumerate(trace.operations) if one.position >= start]
    # What step 1 does last in place, such as following with the average, lies at the same position as step 2's begin.
    begins = next((n for n, one in numbered if one.phase != "optimizer"), None)
    updates = next((n for n, one in numbered if begins is not None and n > begins and one.phase == "optimizer"), None)
    if begins is None or updates is None:
        return None
    update = trace.operations[updates].position
    made = (at for at in range(start, update) if _made_by_optimizer(trace, trace.events[at]))
    return _Pass(start, next(made, update), begins, updates)


def _made_by_optimizer(trace: Trace, event: int) -> bool:
    return event >= 0 and trace.storages[event].phase == "optimizer"


@dataclass(slots=True)
class _Twins:
    """The storages of the second pass, by those of the first, and their events."""

    storages: list[StorageRecord]
    living: dict[int, int] = field(default_factory=dict)
    events: list[int] = field(default_factory=list)

    def make(self, storage: int) -> None:
        self.living[storage] = len(self.storages)
        self.events.append(self.living[storage])
        self.storages.append(self.storages[storage])

    def free(self, storage: int) -> None:
        if storage in self.living:  # else it is older than the pass, and gone already
            self.events.append(~self.living.pop(storage))


def _repeated(trace: Trace, found: _Pass) -> tuple[list[int], list[StorageRecord], dict[int, int]]:
    """The pass over again: its events, all storages with its own, and where each of its positions has moved.

    A gradient goes once the operation that made it has ended, for it is added to the one that is there. Whatever else
    the first pass leaves goes at the end.
    """
    stretch = trace.events[found.start : found.stop]
    left = {event for event in stretch if event >= 0} - {~event for event in stretch if event < 0}
    ends = {operation.position for operation in found.operations(trace)}
    twins, moved, added = _Twins(list(trace.storages)), {}, list[int]()
    for position in range(found.start, found.stop + 1):
        moved[position] = found.stop + len(twins.events)
        if position in ends or position == found.stop:
            while added:
                twins.free(added.pop())
        if position == found.stop:
            break
        event = trace.events[position]
        twins.make(event) if event >= 0 else twins.free(~event)
        if event in left and trace.storages[event].kind == "gradient":
            added.append(event)
    for storage in list(twins.living):
        twins.free(storage)
    return twins.events, twins.storages, moved

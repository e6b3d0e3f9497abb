"""The fullest moment of each phase of a traced step, and what its tensors were for and whose. Sizes in bytes.

Tensors alone, before the allocator rounds them: the same trace gives the same bytes on every machine, and no constant
that was fitted to a card is in them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import get_args

from vramfit.prediction.trace_records import Trace, TracePhase
from vramfit.records import Bytes, Record

# A module that holds less than this share of a peak is counted with the module that it is part of.
SMALLEST_SHARE = 0.01


class PhasePeak(Record):
    """The most that tensors hold in a phase: by what they are for, and by the module that made them.

    What no module made goes by its phase and operation: `(loss).log_softmax`.
    """

    size_bytes: Bytes
    kinds: dict[str, Bytes]
    modules: dict[str, Bytes]

    def rolled_up(self) -> "PhasePeak":
        """The same peak with its small modules counted with those that they are part of."""
        return self.model_copy(update={"modules": _rolled_up(self.modules, self.size_bytes * SMALLEST_SHARE)})


def phase_peaks(trace: Trace) -> dict[str, PhasePeak]:
    """The peak of each phase, in the order of a step; modules by their full names."""
    moments = set(_fullest(trace).values())
    live: dict[int, None] = {}
    found: dict[str, PhasePeak] = {}
    for position, event in enumerate(trace.events):
        if event >= 0:
            live[event] = None
        else:
            del live[~event]
        if position in moments:
            found[trace.storages[event].phase] = _held(trace, live)
    return {phase: found[phase] for phase in get_args(TracePhase) if phase in found}


def _fullest(trace: Trace) -> dict[str, int]:
    """The number of the event at which most is held, by the phase that runs; the first of several."""
    most: dict[str, tuple[int, int]] = {}
    for position, (event, held) in enumerate(zip(trace.events, trace.allocated_bytes(), strict=True)):
        phase = trace.storages[event].phase if event >= 0 else None
        if phase is not None and held > most.get(phase, (-1, 0))[0]:
            most[phase] = held, position
    return {phase: position for phase, (_, position) in most.items()}


def _held(trace: Trace, live: Mapping[int, None]) -> PhasePeak:
    kinds: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for storage in (trace.storages[number] for number in live):
        kinds[storage.kind] += storage.size_bytes
        modules[storage.module or f"({storage.phase}).{storage.op}"] += storage.size_bytes
    return PhasePeak(size_bytes=kinds.total(), kinds=_largest_first(kinds), modules=_largest_first(modules))


def _rolled_up(modules: Mapping[str, int], least: float) -> dict[str, int]:
    sizes = Counter(modules)
    for depth in range(max((name.count(".") for name in sizes), default=0), 0, -1):
        for name in [name for name in sizes if name.count(".") == depth and sizes[name] < least]:
            sizes[name.rpartition(".")[0]] += sizes.pop(name)
    return _largest_first(sizes)


def _largest_first(sizes: Counter[str]) -> dict[str, int]:
    return dict(sorted(((name, size) for name, size in sizes.items() if size), key=lambda one: (-one[1], one[0])))

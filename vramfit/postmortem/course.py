"""The course of a recording: its steps, and its passes of forward calls, from the phases of what it allocates.

A pass begins where a network is called after something else ran, a step where that comes after an optimizer, or, in a
recording that shows no optimizer, after a backward pass. Both count from 1.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from vramfit.postmortem.stacks import Line, Origin, Phase

_LEARNING: tuple[Phase, ...] = ("backward", "optimizer")


@dataclass(frozen=True)
class Pass:
    """One run of forward calls: the first event, the line that calls the network, whether backward came after it."""

    start: int
    caller: Line | None
    learns: bool


@dataclass(frozen=True)
class Course:
    """Where steps and passes begin, as numbers of events."""

    steps: tuple[int, ...]
    passes: tuple[Pass, ...]

    @classmethod
    def of(cls, origins: Sequence[Origin | None]) -> "Course":
        """The course of the events whose origins these are."""
        phases = [(number, one) for number, one in enumerate(origins) if one is not None and not one.workspace]
        return cls(_steps(phases), _passes(phases))

    def step_of(self, event: int) -> int:
        """The step that an event is in; 0 for what is older than the recording."""
        return 0 if event < 0 else max(1, bisect_right(self.steps, event))

    def pass_of(self, event: int) -> int:
        """The pass that an event is in or after; 0 before the first."""
        return 0 if event < 0 else bisect_right(self.passes, event, key=lambda one: one.start)


def _steps(phases: Sequence[tuple[int, Origin]]) -> tuple[int, ...]:
    optimizer = any(origin.phase == "optimizer" for _, origin in phases)
    ends = ("optimizer",) if optimizer else _LEARNING
    starts, ended = [0], False
    for number, origin in phases:
        if origin.phase in ends:
            ended = True
        elif ended and origin.phase in ("forward", "script"):
            starts.append(number)
            ended = False
    return tuple(starts)


def _passes(phases: Sequence[tuple[int, Origin]]) -> tuple[Pass, ...]:
    found: list[Pass] = []
    before: Phase = "script"
    caller: Line | None = None
    for number, origin in phases:
        if origin.phase == "forward" and (before != "forward" or origin.caller != caller):
            found.append(Pass(number, origin.caller, learns=False))
        elif origin.phase == "backward" and found and not found[-1].learns:
            found[-1] = Pass(found[-1].start, found[-1].caller, learns=True)
        if origin.phase == "forward":
            caller = origin.caller
        before = origin.phase
    return tuple(found)

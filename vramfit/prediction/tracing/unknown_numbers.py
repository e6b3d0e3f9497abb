"""What a number is taken to be that is read from the card and of which nothing is known.

A step may stop early by it, or go on; so it is traced with a few numbers, and the trace that takes most memory stands.
Where it is the size of something, no number is the largest: such a step is not predicted.
"""

from collections.abc import Callable
from dataclasses import replace

from vramfit.choices import ValuePolicy
from vramfit.errors import NotTraceable
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.undecided import EndlessLoop, UnboundedSize

_FIRST, _NONE, _MANY = 1, 0, 64
_DEPENDS = 1.05  # by so much a number that is many makes the peak larger where a size follows it


def said_of(number: int) -> str:
    """How a trace says what a number was taken to be."""
    return f"a number read from the card is {number}"


def largest_trace(make: Callable[[ValuePolicy], Trace], policy: ValuePolicy) -> Trace:
    """The trace with the highest peak, by what an unknown number is; `make` traces the step under a policy.

    Known limitations: one number stands for all that are unknown, so a step that takes most memory where they differ
    is not traced so; a size that makes little of the peak at 64 passes; and a trace is made twice more where one is
    read.

    Raises:
        NotTraceable: the step cannot be traced, or its memory grows with the number; names the line that reads it.

    """
    trace = make(replace(policy, number=_FIRST))
    place = _place_of_reading(trace)
    if not place:
        return trace
    many = _made(make, replace(policy, number=_MANY))
    if many and many.peak_bytes > trace.peak_bytes * _DEPENDS:
        raise UnboundedSize(
            f"the step takes {many.peak_bytes / trace.peak_bytes:.1f} times the memory where a number that only a "
            f"card has, read at {place}, is {_MANY} and not {_FIRST}; bound it there (`clamp`), take it from the "
            "batch, have values computed (--real-values), or measure on a card."
        )
    others = [one for one in (many, _made(make, replace(policy, number=_NONE))) if one]
    return max((trace, *others), key=lambda one: one.peak_bytes)


def _place_of_reading(trace: Trace) -> str:
    """The line where an unknown number is read; "" where none is."""
    return next((said.partition(": ")[0] for said in trace.assumptions if said.endswith(said_of(_FIRST))), "")


def _made(make: Callable[[ValuePolicy], Trace], policy: ValuePolicy) -> Trace | None:
    """The trace for a number; None where the step does not take it, as an index past an end."""
    try:
        return make(policy)
    except EndlessLoop:
        raise
    except NotTraceable:
        return None
